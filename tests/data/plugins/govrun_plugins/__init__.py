"""Third-party backends, most of them hostile, registered by the dist-info directories beside this package."""
