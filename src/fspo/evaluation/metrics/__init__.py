"""The measures of `metrics.json`, from scores and judgements."""
