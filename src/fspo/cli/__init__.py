"""The command line: one file per verb; reads configuration, calls a stage, shows progress."""
