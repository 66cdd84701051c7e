"""The compiled twins of `codec.py`: the same functions, word for word in what they promise.

Nothing here gives up the GIL, so the payload cannot change while it is read.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from sys import getsizeof

__all__ = ["RSV1", "apply_mask", "encode_frame", "take_messages"]

RSV1 = 0x40
cdef enum:
    _RSV1 = 0x40


cdef void _mask(
    uint8_t *out, const uint8_t *data, Py_ssize_t size, const uint8_t *key, Py_ssize_t offset
) noexcept:
    """Eight bytes at a time; `offset` is that of data[0] in its payload."""
    cdef uint8_t turned[8]
    cdef uint64_t wide, word
    cdef Py_ssize_t at
    for at in range(8):
        turned[at] = key[(offset + at) & 3]
    memcpy(&wide, turned, 8)
    at = 0
    while at + 8 <= size:
        memcpy(&word, data + at, 8)
        word ^= wide
        memcpy(out + at, &word, 8)
        at += 8
    while at < size:
        out[at] = data[at] ^ turned[at & 7]
        at += 1


cdef bytes _masked(const uint8_t *data, Py_ssize_t size, const uint8_t *key, Py_ssize_t offset):
    cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
    _mask(<uint8_t *> PyBytes_AS_STRING(out), data, size, key, offset)
    return out


def apply_mask(data, bytes key not None, Py_ssize_t offset=0):
    """Mask or unmask `data`; see the Python twin."""
    if len(key) != 4:
        raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
    cdef bytes whole = data if type(data) is bytes else bytes(data)
    return _masked(
        <const uint8_t *> PyBytes_AS_STRING(whole),
        PyBytes_GET_SIZE(whole),
        <const uint8_t *> PyBytes_AS_STRING(key),
        offset,
    )


def encode_frame(int opcode, payload, *, bint fin=True, masking_key=None, bint compressed=False):
    """Encode one frame; see the Python twin."""
    cdef bytes whole
    if type(payload) is bytes:
        whole = payload
    elif isinstance(payload, memoryview):
        whole = payload.tobytes()  # of any item size and any stride
    else:
        whole = bytes(payload)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(whole), at
    cdef uint8_t header[14]
    cdef int mask_bit = 0 if masking_key is None else 0x80
    header[0] = opcode | (0x80 if fin else 0) | (_RSV1 if compressed else 0)
    cdef int width = 2, byte
    if size < 126:
        header[1] = mask_bit | size
    elif size < 1 << 16:
        header[1] = mask_bit | 126
        header[2] = size >> 8
        header[3] = size & 0xFF
        width = 4
    else:
        header[1] = mask_bit | 127
        for byte in range(8):
            header[2 + byte] = (<uint64_t> size >> (56 - 8 * byte)) & 0xFF
        width = 10
    cdef bytes key = masking_key
    if key is not None:
        if len(key) != 4:
            raise ValueError(f"a masking key has 4 bytes, not {len(key)}")
        memcpy(header + width, PyBytes_AS_STRING(key), 4)
        width += 4
    cdef bytes out = PyBytes_FromStringAndSize(NULL, width + size)
    cdef uint8_t *to = <uint8_t *> PyBytes_AS_STRING(out)
    memcpy(to, header, width)
    if key is None:
        memcpy(to + width, PyBytes_AS_STRING(whole), size)
    else:
        _mask(
            to + width,
            <const uint8_t *> PyBytes_AS_STRING(whole),
            size,
            <const uint8_t *> PyBytes_AS_STRING(key),
            0,
        )
    return out


def take_messages(
    bytes data not None,
    Py_ssize_t position,
    list messages not None,
    *,
    bint masked,
    Py_ssize_t max_size,
    room,
    Py_ssize_t most,
):
    """Take the messages that stand complete in `data`; see the Python twin."""
    cdef const uint8_t *bytes_ = <const uint8_t *> PyBytes_AS_STRING(data)
    cdef Py_ssize_t end_of_data = PyBytes_GET_SIZE(data), last = end_of_data - 6
    cdef Py_ssize_t key_size = 4 if masked else 0
    cdef int mask_bit = 0x80 if masked else 0
    cdef Py_ssize_t size, start, end, left = 0
    cdef bint bounded = room is not None
    cdef int first, byte
    cdef uint64_t wide
    cdef bytes payload
    if bounded:
        left = room
    while position <= last and most > 0 and (not bounded or left > 0):
        first = bytes_[position]
        size = bytes_[position + 1] ^ mask_bit  # above 127 if the mask bit was wrong
        if size > 127 or (first != 0x82 and first != 0x81):
            break
        start = position + 2 + key_size
        if size == 126:
            size = bytes_[position + 2] << 8 | bytes_[position + 3]
            start += 2
            if size < 126:
                break
        elif size == 127:
            if position + 10 > end_of_data:
                break
            wide = 0
            for byte in range(2, 10):
                wide = wide << 8 | bytes_[position + byte]
            if wide < 1 << 16 or wide > <uint64_t> end_of_data:
                break
            size = <Py_ssize_t> wide
            start += 8
        end = start + size
        if end > end_of_data or size > max_size:
            break
        if masked:
            payload = _masked(bytes_ + start, size, bytes_ + start - 4, 0)
        else:
            payload = PyBytes_FromStringAndSize(<const char *> bytes_ + start, size)
        if first == 0x82:
            messages.append(payload)
        else:
            try:
                messages.append(PyUnicode_DecodeUTF8(PyBytes_AS_STRING(payload), size, NULL))
            except UnicodeDecodeError:
                break
        position = end
        most -= 1
        if bounded:
            left -= getsizeof(messages[-1])
    return position, left if bounded else None
