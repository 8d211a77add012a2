"""What a study found: exclusions with reasons, win rates with intervals, and diagnostics of the instrument itself."""
