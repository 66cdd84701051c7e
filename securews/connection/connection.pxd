cimport cython

from securews.connection.channel cimport Channel
from securews.connection.interfaces cimport Consumer
from securews.connection.link cimport Link
from securews.connection.send_queue cimport SendQueue
from securews.connection.sender cimport Sender
from securews.connection.watchdog cimport Watchdog
from securews.loop.loop cimport Loop
from securews.protocol.parser cimport WebSocketParser

cdef double CALLBACK_SECONDS

cdef class Connection(Consumer):
    cdef public object _budget, _close_timer, _end_reason, _message_received, _own_ping, _pings, _watch_timer, latency, name, observer, options, role
    cdef public list _events
    cdef public double _own_ping_at
    cdef public Py_ssize_t _held
    cdef public bint _event_driven, _finished, _gone, _over, _paused
    cdef public Channel channel
    cdef public Link link
    cdef public Loop loop
    cdef public Sender sender
    cdef public Watchdog _watchdog
    cdef public WebSocketParser parser
    cdef _receive(self, bytes data)
    cdef _go_on(self)
    cdef bint _queue_full(self) except -1
    @cython.locals(events=list, queued=list, sending=SendQueue, index=Py_ssize_t, messages=Py_ssize_t, control=Py_ssize_t, until=double)
    cdef _dispatch(self, double began)
    cdef _call_back(self, message)
    cdef bint _must_wait(self) except -1
    cdef _deliver(self, list queued)
    @cython.locals(read=bint, left_over=bint)
    cdef _read_or_pause(self)
    cpdef _report_held(self)
    cdef Py_ssize_t _memory_held(self) except -1
    cdef _account(self, Py_ssize_t held)
