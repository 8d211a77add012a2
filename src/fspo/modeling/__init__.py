"""Language models as tensors.

Obtaining and loading them, episodes as tokens, trunk-and-branch log-probs, generation, policies on disk.
"""
