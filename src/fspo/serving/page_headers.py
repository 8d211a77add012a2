"""The headers of pages: the browser loads and runs nothing but the server's own files, and asks only this server."""

from __future__ import annotations

__all__ = ["page_headers"]

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
)


def page_headers(*, forms: bool) -> dict[str, str]:
    """The headers of a page, with forms that are sent to this server or without any."""
    return {
        "content-security-policy": "; ".join((*_POLICY, "form-action 'self'" if forms else "form-action 'none'")),
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
