from securews.connection.channel cimport Channel
from securews.loop.loop cimport Loop
from securews.connection.sending cimport Sending
from securews.connection.receiving cimport Receiving
from securews.connection.dispatcher cimport Dispatcher
from securews.connection.peer_limits cimport PeerLimits
from securews.protocol.websocket cimport WebSocketProtocol
cdef class Connection:
    cdef public object _budget, _close_timer, _ending, close_code, close_reason, deflate, initiator, keepalive, limits, name, observer, options, role
    cdef public Py_ssize_t _held
    cdef public bint _peer_gone, ended
    cdef public Channel channel
    cdef public Loop loop
    cdef public Dispatcher _dispatcher
    cdef public PeerLimits peer_limits
    cdef public WebSocketProtocol protocol
    cdef public Receiving receiving
    cdef public Sending sending
    cpdef turn(self)
    cpdef data_received(self, bytes data)
    cpdef turned(self)
    cdef _dispatch(self, double began)
    cdef _go_on(self)
    cdef _read_or_pause(self)
