"""The personalisation tax: what a user's shots, and training on them, cost on tasks where taste does not matter."""
