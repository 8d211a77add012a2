"""Errors of the API, in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from fspo.errors import DataError, FspoError, ModelError, StorageError
from fspo.files import to_json
from fspo.printing import nearest
from fspo.serving.admission import ServerFull, TooManyAnswers
from fspo.serving.connection import StoreBusy, StoreFull
from fspo.serving.counters import REQUEST_ID
from fspo.serving.logged_errors import outlined
from fspo.serving.ownership import UnknownOwner

__all__ = [
    "ApiError",
    "ErrorView",
    "add_error_handlers",
    "api_error",
    "error_body",
    "error_response",
    "not_found",
    "why",
]

_LOG = logging.getLogger(__name__)


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorView(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class ApiError(Exception):
    """An error with its status code."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`param` names the parameter that is wrong."""
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {})


class _Json(JSONResponse):
    """A message may quote a name that only escapes can hold."""

    def render(self, content: Any) -> bytes:
        return to_json(content).encode()


_NO_JSON = "The body is not valid JSON."
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(error: ApiError) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def error_response(error: ApiError) -> Response:
    """An error as a response."""
    return _Json(error_body(error), error.status, headers=error.headers)


def not_found(what: str) -> ApiError:
    """The error for something that does not exist, or belongs to somebody else: nobody can tell which."""
    return ApiError(404, f"There is no such {what}.", "not_found")


def api_error(error: BaseException) -> ApiError:
    """Any exception as an error of the API.

    Only texts about the request itself are shown: others may quote another user's data, addresses or names of keys.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UnknownOwner):
        return ApiError(401, "The key is not valid.", "invalid_api_key")
    if isinstance(error, TooManyAnswers):
        return ApiError(429, str(error), "too_many_answers", headers={"retry-after": "1"})
    if isinstance(error, ServerFull):
        return ApiError(503, str(error), "server_full", headers={"retry-after": "1"})
    if isinstance(error, DataError):
        return ApiError(400, str(error), "invalid_request")
    if isinstance(error, StoreFull):
        return ApiError(507, str(error), "store_full")
    if isinstance(error, StoreBusy):
        return ApiError(503, str(error), "store_busy", headers={"retry-after": "1"})
    if isinstance(error, StorageError):
        return ApiError(503, "The store can't be used; the server's log says why.", "store_unavailable")
    if isinstance(error, ModelError):
        return ApiError(502, "The model can't answer now; try again later.", "model_unavailable")
    return ApiError(500, "The server has an internal error; its log says where.", "server_error")


def why(error: BaseException) -> str:
    """The reason for an error, for the log: the sentence about the store, or where any other exception was raised."""
    return str(error) if isinstance(error, StorageError) else f"{outlined(error)}."


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of the application OpenAI's form."""

    async def known(request: Request, error: Exception) -> Response:
        shown = api_error(error)
        if shown.status >= 500:
            name = request.state.request_id
            _LOG.error("The request %s failed with status %d: %s", name, shown.status, why(error))
            shown.headers[REQUEST_ID] = name
        return error_response(shown)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(_invalid(error.errors()))

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        codes = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
        code = codes.get(error.status_code, "invalid_request")
        message = {
            400: _NO_JSON,  # what the framework could not even begin to read
            404: "There is no such address; those of this API begin with /v1, and /v1/openapi.json lists them.",
            405: "This address does not have this method; /v1/openapi.json lists all addresses and methods.",
        }
        text = message.get(error.status_code, str(error.detail))
        return error_response(ApiError(error.status_code, text, code, headers=error.headers))

    for kind in (ApiError, FspoError, Exception):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first invalid value that pydantic found."""
    fault = _clearest(errors)
    kind = fault["type"]
    if kind == "json_invalid":
        return ApiError(400, _NO_JSON, "invalid_json")
    param = ".".join(_place(fault)) or None
    if param is None and kind in ("missing", "model_attributes_type", "dict_type"):
        text = "The body is not a JSON object; send one, with the header Content-Type: application/json."
        return ApiError(400, text, "invalid_json")
    if param == "model" and kind != "missing":
        return ApiError(404, "There is no such model; use fspo or base.", "model_not_found", param=param)
    if meant := _misspelt(fault, errors):
        text = f"{meant!r} is unknown to this server; did you mean {param!r}?"
        return ApiError(400, text, "unknown_parameter", param=meant)
    code = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}.get(kind, "invalid_value")
    return ApiError(400, _sentence(param, kind, fault), code, param=param)


_RULES = {
    "missing": "is missing; add it",
    "extra_forbidden": "is unknown to this server; leave it out",
    "string_type": "must be a text",
    "string_unicode": "has a character that is not Unicode; remove it",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "none_required": "must be null or left out",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be above {gt}",
    "less_than": "must be below {lt}",
    "string_too_long": "has more than {max_length:,} characters; shorten it",
    "too_long": "has more than {max_length:,} entries; leave some out",
    "too_short": "is empty; it needs at least one entry",
}
"""Pydantic's word for what is wrong -> the end of a sentence; pydantic names a limit `ge`, `max_length`, ..."""
_IN_JSON = {"True": "true", "False": "false", "None": "null"}


def _sentence(param: str | None, kind: str, fault: Mapping[str, Any]) -> str:
    limits = fault.get("ctx", {})
    if kind == "value_error":  # of a check of our own
        rule = str(fault["msg"]).removeprefix("Value error, ")
    elif kind == "literal_error":
        rule = f"must be {_IN_JSON.get(limits['expected'], limits['expected'])}"
    else:
        rule = _RULES.get(kind, "has a value that this server can't use").format(**limits)
    return f"{'The body' if param is None else repr(param)} {rule}."


def _clearest(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The error that explains the first invalid value.

    A union has errors of each member. A member of another kind (a text, where the value is a list) explains nothing
    while another member explains the value.
    """
    first = _place(errors[0])
    own = [error for error in errors if _place(error)[: len(first)] == first]
    explaining = (error for error in own if error["type"] not in _OTHER_KIND or _place(error) != first)
    return next(explaining, errors[0])


def _misspelt(fault: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> str:
    """The unknown field beside a missing one that is close to it; empty where there is none."""
    if fault["type"] != "missing":
        return ""
    *above, name = _place(fault)
    unknown = [_place(error) for error in errors if error["type"] == "extra_forbidden"]
    close = nearest(name, [place[-1] for place in unknown if place[:-1] == above])
    return ".".join([*above, close]) if close else ""


_OTHER_KIND = ("string_type", "list_type")


def _place(error: Mapping[str, Any]) -> list[str]:
    """Names and positions on the way to a value, without the members of unions that pydantic writes between them."""
    members = ("function-", "constrained-", "list[")
    return [str(part) for part in error["loc"][1:] if not str(part).startswith(members)]
