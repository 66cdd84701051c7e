"""In which context a message is compressed, and that the peer's stays the same as ours."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securews.common.options import Compression
from securews.connection.compressing import Compressing, SharedMessage
from securews.protocol.deflate import Deflate
from securews.protocol.deflate_negotiation import negotiate_server
from securews.protocol.frames import Opcode, encode_frame
from securews.protocol.parser import Role, WebSocketParser
