"""Language models as tensors: obtaining and loading them, episodes as tokens, trunk-and-branch log-probs, generation,
policies on disk."""
