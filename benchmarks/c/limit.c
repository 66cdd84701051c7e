/* The limit: a WebSocket server over TLS with nothing between epoll and OpenSSL, on one thread.
 *
 *   limit --port P --cert FILE --key FILE [--broadcast]
 *
 * It echoes; with --broadcast each message goes to all connections. All frames of a read are
 * answered with one SSL_write. It has none of the protections of a server for strangers (no
 * deadlines, no check of UTF-8, no fragments): it marks how little the machine can spend.
 */
#include "common.h"
#include "tls.h"
#include "websocket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define INPUT_ROOM (2 * 1024 * 1024)  /* of one turn, an unfinished frame included */
#define MAX_HEAD 8192
#define EVENTS_PER_TURN 256

enum phase { HANDSHAKE, OPENING, OPEN, ENDING };

struct peer {
    int fd;
    SSL *ssl;
    enum phase phase;
    uint32_t armed;
    uint8_t *rest; /* an unfinished frame or head */
    size_t rest_length;
    uint8_t *out; /* what the socket did not take; nothing is read before it is gone */
    size_t out_length, out_done;
    unsigned index; /* in `peers` */
};

static uint8_t input[INPUT_ROOM];
static uint8_t output[INPUT_ROOM];
static struct peer **peers;
static unsigned peer_count, peer_room;
static int poller;
static bool broadcast;

static void arm(struct peer *peer, uint32_t events)
{
    if (peer->armed == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = peer};
    if (epoll_ctl(poller, peer->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, peer->fd, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
    peer->armed = events;
}

static void add_peer(int fd, SSL_CTX *context)
{
    struct peer *peer = calloc(1, sizeof *peer);
    if (peer_count == peer_room) {
        peer_room = peer_room ? 2 * peer_room : 64;
        peers = realloc(peers, peer_room * sizeof(struct peer *));
    }
    if (!peer || !peers || !(peer->ssl = SSL_new(context)))
        fail("no memory for a connection");
    peer->fd = fd;
    SSL_set_fd(peer->ssl, fd);
    SSL_set_accept_state(peer->ssl);
    peer->index = peer_count;
    peers[peer_count++] = peer;
    arm(peer, EPOLLIN);
}

/* Everything but the memory of the peer itself, which the turn's other events may name. */
static void end_peer(struct peer *peer)
{
    ERR_clear_error();
    SSL_free(peer->ssl);
    close(peer->fd);
    free(peer->rest);
    free(peer->out);
    peer->ssl = NULL;
    peers[peer->index] = peers[--peer_count];
    peers[peer->index]->index = peer->index;
}

/* ---- writing ---- */

static void keep_output(struct peer *peer, const uint8_t *data, size_t length)
{
    size_t left = peer->out_length - peer->out_done;
    if (peer->out_done > 0)
        memmove(peer->out, peer->out + peer->out_done, left);
    peer->out = realloc(peer->out, left + length);
    if (!peer->out)
        fail("no memory for what a peer does not read");
    memcpy(peer->out + left, data, length);
    peer->out_length = left + length;
    peer->out_done = 0;
    arm(peer, EPOLLOUT);
}

static bool write_some(struct peer *peer, const uint8_t *data, size_t length, size_t *done)
{
    *done = 0;
    while (*done < length) {
        ssize_t written = tls_write(peer->ssl, data + *done, length - *done);
        if (written == WANTS_READ || written == WANTS_WRITE)
            return true;
        if (written < 0)
            return false;
        *done += (size_t)written;
    }
    return true;
}

/* False if the connection is broken. */
static bool send_bytes(struct peer *peer, const uint8_t *data, size_t length)
{
    size_t done = 0;
    if (peer->out_length == 0 && !write_some(peer, data, length, &done))
        return false;
    if (done < length)
        keep_output(peer, data + done, length - done);
    return true;
}

static bool flush(struct peer *peer)
{
    size_t done, left = peer->out_length - peer->out_done;
    if (!write_some(peer, peer->out + peer->out_done, left, &done))
        return false;
    peer->out_done += done;
    if (done < left)
        return true;
    free(peer->out);
    peer->out = NULL;
    peer->out_length = peer->out_done = 0;
    arm(peer, EPOLLIN);
    return true;
}

/* ---- the WebSocket ---- */

static bool open_websocket(struct peer *peer, char *head)
{
    char accept[ACCEPT_LENGTH + 1], answer[256];
    size_t length;
    const char *key = find_field(head, "Sec-WebSocket-Key", &length);
    if (strncmp(head, "GET ", 4) != 0 || !key || length != KEY_LENGTH) {
        static const char refusal[] =
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        send_bytes(peer, (const uint8_t *)refusal, sizeof refusal - 1);
        return false;
    }
    accept_for_key(key, accept);
    int size = snprintf(answer, sizeof answer,
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                        accept);
    peer->phase = OPEN;
    return send_bytes(peer, (const uint8_t *)answer, (size_t)size);
}

/* The Close frame is on its way; the client ends the connection when it has read it. */
static void begin_end(struct peer *peer)
{
    peer->phase = ENDING;
    SSL_shutdown(peer->ssl);
    shutdown(peer->fd, SHUT_WR);
}

static void send_to_all(const uint8_t *frame, size_t length)
{
    for (unsigned i = 0; i < peer_count; i++)
        if (peers[i]->phase == OPEN && !send_bytes(peers[i], frame, length))
            shutdown(peers[i]->fd, SHUT_RDWR); /* its own event ends it */
}

/* Writes the answer to one frame behind `to`; returns its length. */
static size_t answer_frame(const struct frame_header *header, const uint8_t *payload, uint8_t *to)
{
    if (header->opcode == PONG)
        return 0;
    uint8_t opcode = header->opcode == PING ? PONG : header->opcode;
    size_t size = write_frame_header(to, opcode, header->length, NULL);
    apply_mask(to + size, payload, header->length, header->mask);
    return size + header->length;
}

/* Answers the complete frames of `data`; the bytes that are used up, or -1 to end the peer. */
static ssize_t answer_frames(struct peer *peer, const uint8_t *data, size_t length)
{
    size_t used = 0, answered = 0;
    bool closing = false;
    while (!closing) {
        struct frame_header header;
        int size = parse_frame_header(data + used, length - used, &header);
        if (size < 0 || (size > 0 && (!header.masked || header.length > INPUT_ROOM / 2
                                      || !header.fin || header.opcode == CONTINUATION)))
            return -1;
        if (size == 0 || header.length > length - used - (size_t)size)
            break;
        size_t answer = answer_frame(&header, data + used + size, output + answered);
        used += (size_t)size + header.length;
        closing = header.opcode == CLOSE;
        if (broadcast && header.opcode < CLOSE)
            send_to_all(output + answered, answer);
        else
            answered += answer;
    }
    if (answered > 0 && !send_bytes(peer, output, answered))
        return -1;
    if (closing)
        begin_end(peer);
    return (ssize_t)used;
}

/* ---- reading ---- */

static void keep_rest(struct peer *peer, const uint8_t *data, size_t length)
{
    free(peer->rest);
    peer->rest = NULL;
    peer->rest_length = length;
    if (length == 0)
        return;
    peer->rest = malloc(length);
    if (!peer->rest)
        fail("no memory for an unfinished frame");
    memcpy(peer->rest, data, length);
}

static bool take_input(struct peer *peer, size_t length)
{
    size_t used = 0;
    if (peer->phase == OPENING) {
        input[length] = '\0';
        char *end = strstr((char *)input, "\r\n\r\n");
        if (!end) {
            keep_rest(peer, input, length);
            return length < MAX_HEAD;
        }
        used = (size_t)(end + 4 - (char *)input);
        end[2] = '\0';
        if (!open_websocket(peer, (char *)input))
            return false;
    }
    if (peer->phase == OPEN) {
        ssize_t frames = answer_frames(peer, input + used, length - used);
        if (frames < 0)
            return false;
        used += (size_t)frames;
    }
    if (peer->phase == OPEN)
        keep_rest(peer, input + used, length - used);
    return true;
}

/* Reads all there is into `input`, behind what was unfinished. False at the end. */
static bool read_all(struct peer *peer)
{
    size_t before = peer->rest_length, length = before;
    bool ended = false;
    if (before > 0)
        memcpy(input, peer->rest, before);
    do {
        ssize_t done = tls_read(peer->ssl, input + length, sizeof input - 1 - length);
        ended = done == ENDED || done == BROKEN;
        if (done < 0)
            break;
        length += (size_t)done;
    } while (SSL_has_pending(peer->ssl) && length < sizeof input - 1);
    if (ended || length == before)
        return !ended;
    return take_input(peer, length);
}

static bool continue_handshake(struct peer *peer)
{
    ssize_t done = tls_handshake(peer->ssl);
    if (done == WANTS_READ || done == WANTS_WRITE) {
        arm(peer, done == WANTS_READ ? EPOLLIN : EPOLLOUT);
        return true;
    }
    if (done < 0)
        return false;
    peer->phase = OPENING;
    arm(peer, EPOLLIN);
    /* The request may have come with the last bytes of the handshake. */
    return SSL_has_pending(peer->ssl) ? read_all(peer) : true;
}

static bool step(struct peer *peer, uint32_t events)
{
    if (peer->phase == HANDSHAKE)
        return continue_handshake(peer);
    if (peer->out_length > 0 && !flush(peer))
        return false;
    if (peer->out_length > 0)
        return !(events & (EPOLLHUP | EPOLLERR));
    return read_all(peer);
}

/* ---- the server ---- */

static void accept_all(int listener, SSL_CTX *context)
{
    int on = 1;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        add_peer(fd, context);
    }
}

static void serve(int listener, SSL_CTX *context)
{
    struct epoll_event events[EVENTS_PER_TURN];
    struct peer *gone[EVENTS_PER_TURN];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS_PER_TURN, -1), gone_count = 0;
        for (int i = 0; i < count; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer) {
                accept_all(listener, context);
            } else if (!step(peer, events[i].events)) {
                end_peer(peer);
                gone[gone_count++] = peer;
            }
        }
        while (gone_count > 0)
            free(gone[--gone_count]);
    }
}

static int listen_on(unsigned port)
{
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0
        || listen(fd, 1024) != 0)
        fail("cannot listen on port %u: %s", port, strerror(errno));
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
    return fd;
}

static SSL_CTX *make_server_context(const char *cert, const char *key)
{
    SSL_CTX *context = make_context(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, cert) != 1
        || SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        fail("the certificate %s or its key cannot be read", cert);
    return context;
}

int main(int count, char **arguments)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'}, {"cert", required_argument, NULL, 'c'},
        {"key", required_argument, NULL, 'k'},  {"broadcast", no_argument, NULL, 'b'},
        {NULL, 0, NULL, 0},
    };
    const char *cert = NULL, *key = NULL;
    unsigned port = 0;
    int option;
    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': port = (unsigned)parse_number("port", optarg, 1, 65535); break;
        case 'c': cert = optarg; break;
        case 'k': key = optarg; break;
        case 'b': broadcast = true; break;
        default: return 2; /* getopt has said what is wrong */
        }
    }
    if (port == 0 || !cert || !key)
        fail("--port, --cert and --key are needed");
    signal(SIGPIPE, SIG_IGN); /* a peer that went is an error of write, not the end */
    raise_descriptors();
    poller = epoll_create1(EPOLL_CLOEXEC);
    serve(listen_on(port), make_server_context(cert, key));
}
