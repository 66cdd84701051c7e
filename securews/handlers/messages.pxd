cpdef tuple encode_message(message)
