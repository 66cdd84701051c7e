"""An authenticated chat on one port: pages and WebSocket, over TLS alone.

    python -m examples.chat                   serve it on https://localhost:8443/
    python -m examples.chat add-user NAME     add a user, or set a new password
    python -m examples.chat token NAME        print a Bearer token for a script

Who may come in is decided in `gate.py`; what is said, in `room.py`.
"""
