"""The gateway's side towards its clients: HTTP/1.1 on asyncio Protocols, run by uvicorn's server in place of its own.

uvicorn's protocol costs more than everything else the gateway does for a request. This one does less: one write for
head and body, no timer and no event object for a request, and a direct word when a client leaves.
"""
