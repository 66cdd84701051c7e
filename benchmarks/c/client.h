/* A WebSocket client over TLS that many connections share: opening, frames in, frames out.
 *
 * What a load does with connections is in its hooks. All messages of a load are alike: the
 * frames that clients send are masked once, before the run, and lie behind one another in
 * `burst`, so that several that are due together are one TLS write without any copying.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "tls.h"
#include "websocket.h"

enum state { UNUSED, CONNECTING, HANDSHAKING, OPENING, OPEN, CLOSING };

/* What is known of a message that has begun. */
struct incoming {
    uint8_t header[MAX_HEADER];
    unsigned header_length; /* of a header that is not complete */
    struct frame_header frame;
    uint64_t frame_left; /* payload of the frame that is still to come */
    uint64_t message_length;
    bool in_frame;
    bool in_message;
    bool compared; /* one message of each connection is compared with what was sent */
    unsigned control_length;
    uint8_t control[MAX_CONTROL];
};

struct connection {
    enum state state;
    int fd;
    SSL *ssl;
    SSL_SESSION *session; /* its predecessor's newest ticket, to resume with */
    uint32_t armed; /* the epoll events that are waited for */
    uint64_t started;
    struct incoming incoming;
    char *head; /* of the answer to the opening, while it is read */
    size_t head_length;
    const uint8_t *out; /* what TLS has not taken yet; whole frames, so control can go behind */
    size_t out_left;
    unsigned due; /* messages to send once that is gone */
    uint8_t control[MAX_HEADER + MAX_CONTROL], control_out[MAX_HEADER + MAX_CONTROL];
    size_t control_length;
    uint64_t *sent; /* when each message in flight was sent: a ring of `in_flight` */
    unsigned oldest;
    unsigned flying;
};

struct tls_facts {
    char version[16];
    char suite[48];
    char group[32];
};

struct client {
    struct sockaddr_in address;
    unsigned source_addresses; /* connections come from 127.0.0.1 to 127.0.0.N */
    const char *suite; /* the one that is offered, so that all servers choose alike */
    const char *group; /* likewise, of the key exchange */
    SSL_CTX *context;
    X509 *leaf; /* the certificate that was verified */
    bool resume;
    char request[1024];
    size_t request_length;
    char accept[ACCEPT_LENGTH + 1];
    int epoll;
    struct connection *connections;
    unsigned count;
    uint8_t opcode;
    const uint8_t *payload;
    size_t size;
    uint8_t *burst;
    size_t frame_length;
    unsigned in_flight;
    struct tls_facts facts; /* of all connections; a difference is an error */
    bool have_facts;
    bool answered_resumed; /* whether the last handshake resumed a session */
    void (*on_open)(struct client *, struct connection *, uint64_t now);
    void (*on_messages)(struct client *, struct connection *, unsigned count, uint64_t now);
    void (*on_closed)(struct client *, struct connection *, uint64_t now);
};

/* Fills what does not change: context, request, payload and frames. `host` is an IPv4 address. */
void client_prepare(struct client *client, const char *host, unsigned port, const char *path,
                    const char *ca_file, bool text);

/* Starts connection number `index`. */
void client_connect(struct client *client, unsigned index);

/* Works through what epoll reports, waiting at most until `until` (in now_ns()). */
void client_turn(struct client *client, uint64_t until);

/* Sends messages, now or as soon as what was sent before is gone. */
void client_send(struct client *client, struct connection *connection, unsigned messages);

/* Begins the close of RFC 6455, section 7.1.2; on_closed comes when the server has ended it. */
void client_close(struct client *client, struct connection *connection);

/* Ends a connection at once, with close_notify. */
void client_drop(struct connection *connection);

#endif
