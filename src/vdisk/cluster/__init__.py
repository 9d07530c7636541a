"""The only floor that touches rados and rbd: connection, journal, images, trash, task queue, intents."""
