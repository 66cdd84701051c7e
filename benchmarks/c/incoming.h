/* The receiving half of a client: counts messages and checks them, and keeps none. */
#ifndef BENCH_INCOMING_H
#define BENCH_INCOMING_H

#include "client.h"

struct received {
    unsigned messages;
    bool ping; /* its payload is in incoming->control */
    bool close;
};

/* Takes bytes of frames; fails on a message that is not the one that is expected. */
struct received receive_frames(struct incoming *incoming, const struct client *client,
                               const uint8_t *data, size_t length);

#endif
