"""The command layer: parse, authorise, call the service, render. It runs on the module's one command thread."""
