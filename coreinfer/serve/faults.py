"""What a client is told when it cannot have what it asked for, in OpenAI's form."""

from typing import Any

TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 500: "server_error",
    503: "overloaded_error",
}  # fmt: skip
RETRY_S = 1  # when to come again after a 503


class Refused(Exception):
    """A request that is not served: a status, one line with the values and the remedy, the field and OpenAI's code."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        if self.status == 401:
            return {"WWW-Authenticate": 'Bearer realm="coreinfer", Basic realm="coreinfer"'}
        return {"Retry-After": str(RETRY_S)} if self.status == 503 else {}


def in_field(loc: tuple[Any, ...]) -> str | None:
    """Where pydantic found a fault, without the branches of a union that it tried: ``stop.0``."""
    parts = [str(part) for part in loc if part != "body" and not (isinstance(part, str) and "[" in part)]
    kinds = ("str", "constrained-str", "none", "bool", "int", "float")
    return ".".join(part for part in parts if part not in kinds) or None


def malformed(faults: list[Any]) -> Refused:
    """The first fault that pydantic found in a body, as one line; of a field that may be of several types, the one that
    says more than which those are.
    """
    fault = next((one for one in faults if not one["type"].endswith("_type")), faults[0])
    param, kind = in_field(fault["loc"]), fault["type"]
    if kind == "json_invalid":
        return Refused(400, f"the body is no JSON ({fault.get('ctx', {}).get('error', 'malformed')}): mend it")
    if fault["loc"] == ("body",) and kind in ("dict_type", "model_attributes_type", "model_type"):
        return Refused(400, "the body is no JSON object: send one, with the header Content-Type: application/json")
    if kind == "extra_forbidden":
        return Refused(400, f"{param!r} is not known here: leave it out", param, "unknown_parameter")
    if kind == "missing":
        return Refused(400, f"{param or 'the body'!r} is missing: give it", param, "missing_required_parameter")
    said = str(fault["msg"]).removeprefix("Value error, ")
    given = repr(fault.get("input"))
    shown = "" if kind == "value_error" or len(given) > 60 else f" (got {given})"
    return Refused(400, f"{param or 'the body'}: {said}{shown}", param, "invalid_value")
