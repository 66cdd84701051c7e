"""The compiled twins of `syscalls.py`: the same calls, with the GIL kept while nothing waits."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno

cdef extern from "<sys/socket.h>" nogil:
    ssize_t c_recv "recv"(int fd, void *buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void *buffer, size_t size, int flags)

cdef extern from "<unistd.h>" nogil:
    ssize_t c_write "write"(int fd, const void *buffer, size_t size)
    ssize_t c_read "read"(int fd, void *buffer, size_t size)

cdef extern from *:
    """
    #ifdef __linux__
    #include <sys/epoll.h>
    #else
    /* wait_ready() is for Linux: elsewhere nobody calls it. */
    #include <errno.h>
    #include <stdint.h>
    struct epoll_event { uint32_t events; union { int fd; } data; };
    static int epoll_wait(int fd, struct epoll_event *events, int size, int timeout) {
        (void)fd; (void)events; (void)size; (void)timeout;
        errno = ENOSYS;
        return -1;
    }
    #endif
    """
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_wait(int fd, epoll_event *events, int size, int timeout) nogil

__all__ = ["drain", "poke", "receive", "send", "wait_ready"]

cdef enum:
    _BUFFER = 69632  # READ_SIZE of stream.py
    _EVENTS = 512

cdef char _buffer[_BUFFER]  # shared by all threads: whoever fills it keeps the GIL until it is read


def receive(sock, Py_ssize_t size):
    """What is there, at most `size` bytes (68 KiB); see the Python twin."""
    cdef int fd = sock.fileno()
    cdef ssize_t got
    if size > _BUFFER:
        size = _BUFFER
    while True:
        got = c_recv(fd, _buffer, size, 0)
        if got >= 0:
            return PyBytes_FromStringAndSize(_buffer, got)
        _raise_unless_interrupted()


def send(sock, bytes data not None):
    """Send what the socket takes; see the Python twin."""
    cdef int fd = sock.fileno()
    cdef ssize_t sent
    while True:
        sent = c_send(fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), 0)
        if sent >= 0:
            return sent
        _raise_unless_interrupted()


def poke(int pipe):
    """Write a zero into a non-blocking pipe, unless it is full; see the Python twin."""
    while c_write(pipe, b"\0", 1) < 0:
        if errno == EAGAIN:
            return
        _raise_unless_interrupted()


def drain(int pipe):
    """What is in a non-blocking pipe; see the Python twin."""
    cdef char buffer[512]
    cdef ssize_t got
    while True:
        got = c_read(pipe, buffer, 512)
        if got >= 0:
            return PyBytes_FromStringAndSize(buffer, got)
        if errno == EAGAIN:
            return b""
        _raise_unless_interrupted()


def wait_ready(epoll, timeout):
    """The descriptors that are ready, and why; see the Python twin."""
    cdef int fd = epoll.fileno(), count, index, milliseconds = -1
    cdef epoll_event events[_EVENTS]
    count = epoll_wait(fd, events, _EVENTS, 0)
    if count == 0 and (timeout is None or timeout > 0):
        if timeout is not None:  # rounded up: a turn before the deadline would find nothing due
            milliseconds = <int> min(<double> timeout * 1000.0 + 0.999, 2147483000.0)
        with nogil:
            count = epoll_wait(fd, events, _EVENTS, milliseconds)
    if count < 0:
        _raise_unless_interrupted()
        count = 0  # interrupted by a signal: whoever waits looks at the clock anyway
    return [(events[index].data.fd, events[index].events) for index in range(count)]


cdef int _raise_unless_interrupted() except -1:
    if errno != EINTR:
        PyErr_SetFromErrno(OSError)
    return PyErr_CheckSignals()
