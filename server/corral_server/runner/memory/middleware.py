"""ASGI middleware that gives each request a reservation and returns it when the response has ended."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from corral_server.runner.memory.budget import RequestMemory, Reservation, set_current_reservation


class ReservesMemory:
    """``memory`` is the budget of all requests."""

    def __init__(self, app: ASGIApp, memory: RequestMemory) -> None:
        self._app = app
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reservation = Reservation(self._memory)
        set_current_reservation(reservation)
        try:
            await self._app(scope, receive, send)
        finally:
            reservation.release()
