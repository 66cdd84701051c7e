#include "incoming.h"

#include "common.h"

#include <string.h>

static void begin_frame(struct incoming *incoming, const struct client *client)
{
    const struct frame_header *frame = &incoming->frame;
    if (frame->masked)
        fail("the server sent a masked frame");
    incoming->in_frame = true;
    incoming->frame_left = frame->length;
    if (frame->opcode >= CLOSE) {
        incoming->control_length = 0;
        return;
    }
    if ((frame->opcode == CONTINUATION) != incoming->in_message)
        fail("the server sent a fragment out of order");
    if (frame->opcode != CONTINUATION && frame->opcode != client->opcode)
        fail("the server sent opcode %u, and %u was expected", frame->opcode, client->opcode);
    if (!incoming->in_message)
        incoming->message_length = 0;
    incoming->in_message = true;
}

static void take_payload(struct incoming *incoming, const struct client *client,
                         const uint8_t *data, size_t length)
{
    if (incoming->frame.opcode >= CLOSE) {
        memcpy(incoming->control + incoming->control_length, data, length);
        incoming->control_length += (unsigned)length;
    } else {
        if (incoming->message_length + length > client->size)
            fail("the server sent a message of more than %zu bytes", client->size);
        if (!incoming->compared
            && memcmp(data, client->payload + incoming->message_length, length) != 0)
            fail("the server sent a message that is not the one it was sent");
        incoming->message_length += length;
    }
    incoming->frame_left -= length;
}

static void end_frame(struct incoming *incoming, const struct client *client,
                      struct received *received)
{
    incoming->in_frame = false;
    switch (incoming->frame.opcode) {
    case PING:
        received->ping = true;
        return;
    case CLOSE:
        received->close = true;
        return;
    case PONG:
        return;
    }
    if (!incoming->frame.fin)
        return;
    if (incoming->message_length != client->size)
        fail("the server sent a message of %llu bytes, not %zu",
             (unsigned long long)incoming->message_length, client->size);
    incoming->in_message = false;
    incoming->compared = true;
    received->messages++;
}

/* The bytes of `data` that went into a header; in_frame says whether it is complete. */
static size_t take_header(struct incoming *incoming, const struct client *client,
                          const uint8_t *data, size_t length)
{
    size_t taken = 0;
    int size;
    if (incoming->header_length == 0) {
        size = parse_frame_header(data, length, &incoming->frame);
        taken = (size_t)size;
        if (size == 0) { /* the rest of this header comes with the next read */
            memcpy(incoming->header, data, length);
            incoming->header_length = (unsigned)length;
            return length;
        }
    } else {
        do {
            incoming->header[incoming->header_length++] = data[taken++];
            size = parse_frame_header(incoming->header, incoming->header_length, &incoming->frame);
        } while (size == 0 && taken < length);
    }
    if (size < 0)
        fail("the server sent a frame that RFC 6455 does not know");
    if (size > 0) {
        incoming->header_length = 0;
        begin_frame(incoming, client);
    }
    return taken;
}

struct received receive_frames(struct incoming *incoming, const struct client *client,
                               const uint8_t *data, size_t length)
{
    struct received received = {0};
    while (length > 0 && !received.close) {
        size_t taken;
        if (!incoming->in_frame) {
            taken = take_header(incoming, client, data, length);
        } else {
            taken = incoming->frame_left < length ? (size_t)incoming->frame_left : length;
            take_payload(incoming, client, data, taken);
        }
        data += taken;
        length -= taken;
        if (incoming->in_frame && incoming->frame_left == 0)
            end_frame(incoming, client, &received);
    }
    return received;
}
