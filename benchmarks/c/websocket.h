/* The frames and the opening of RFC 6455, for both ends. No input or output here. */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum opcode { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

#define MAX_HEADER 14        /* of a frame, mask included */
#define MAX_CONTROL 125      /* payload of a control frame */
#define KEY_LENGTH 24        /* of Sec-WebSocket-Key */
#define ACCEPT_LENGTH 28     /* of Sec-WebSocket-Accept */

struct frame_header {
    bool fin;
    bool masked;
    uint8_t opcode;
    uint8_t mask[4];
    uint64_t length;
};

/* Bytes that the header takes; 0 if more are needed, -1 if it breaks section 5.2. */
int parse_frame_header(const uint8_t *data, size_t available, struct frame_header *header);

/* Writes a header, final, masked if `mask` is not NULL; returns its length. */
size_t write_frame_header(uint8_t *to, uint8_t opcode, uint64_t length, const uint8_t *mask);

/* XOR of section 5.3; `to` and `from` may be the same. */
void apply_mask(uint8_t *to, const uint8_t *from, size_t length, const uint8_t mask[4]);

/* Sec-WebSocket-Accept for a key, with a terminating zero. */
void accept_for_key(const char key[KEY_LENGTH], char accept[ACCEPT_LENGTH + 1]);

/* The value of a header field in a head, without spaces around it; NULL if it is not there.
 * `head` ends in a zero. */
const char *find_field(const char *head, const char *name, size_t *length);

#endif
