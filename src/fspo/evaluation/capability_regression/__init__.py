"""The personalisation tax: what a user's shots, and training on them, cost where nobody's taste is asked for."""
