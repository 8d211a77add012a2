"""What a synthesis will ask and cost, as a table for `--dry-run`."""

from __future__ import annotations

from fspo.cli.config import RunConfig

__all__ = ["asked_table"]


def asked_table(config: RunConfig) -> str:
    """Requests and tokens of each stage, and dollars where the endpoint's prices are known; empty for other recipes.

    Raises:
        ConfigError: more users are asked for than the domain has.
        DataError: the domain is wrong.
    """
    from fspo.synthesis.recipe.config import RecipeConfig
    from fspo.synthesis.recipe.domain import load_recipe_domain
    from fspo.synthesis.recipe.estimate import estimate

    if not isinstance(config.synthesis, RecipeConfig):
        return ""
    found = estimate(config.synthesis, load_recipe_domain(config.synthesis.domain))
    rows = [("stage", "requests", "tokens of prompts", "of answers")]
    rows += [
        (row.name, f"{row.requests:,}", f"{row.prompt_tokens:,}", f"{row.answer_tokens:,}")
        for row in (*found.stages, found.total)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"  {row[0]:<{widths[0]}}" + "".join(f"  {row[column]:>{widths[column]}}" for column in (1, 2, 3))
        for row in rows
    ]
    head = f"Would ask for up to {found.preferences:,} preferences of {found.users:,} users, at most and roughly:"
    price = config.endpoint.budget.cost(found.total.prompt_tokens, found.total.answer_tokens) if config.endpoint else 0
    cost = [f"  At the prices of endpoint.budget that is {price:,.2f} dollars."] if price else []
    return "\n".join([head, *lines, *cost])
