"""What vdisk serves over HTTP: metrics, and the files of the dashboard's page."""
