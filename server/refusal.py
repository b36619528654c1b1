"""What no GraphQL answer comes to: the request itself is refused."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is not GraphQL, or not let in. `status` and `headers` are for HTTP."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}

    @property
    def errors(self) -> list[dict[str, object]]:
        """As a response has them."""
        return [{"message": str(self), "extensions": {"code": self.code}}]
