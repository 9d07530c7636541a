"""Pure plans: from what was observed and what is wanted to a sequence of named, idempotent steps."""
