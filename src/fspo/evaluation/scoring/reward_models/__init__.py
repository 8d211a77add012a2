"""Reward models from elsewhere, measured like a method: anything that scores a response to a prompt, given shots."""
