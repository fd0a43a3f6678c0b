from __future__ import annotations

from channels.sandbox.http import Request, Response
from channels.sandbox.world import World


def handle(world: World, request: Request) -> Response:
    return Response(404)
