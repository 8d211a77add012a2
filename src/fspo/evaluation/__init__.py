"""Does it personalise? Reward accuracy, sensitivity, win rates, statistics and the report."""
