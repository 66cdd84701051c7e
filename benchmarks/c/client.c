#include "client.h"

#include "common.h"
#include "incoming.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_HEAD 8192
#define EVENTS_PER_TURN 256

static uint8_t read_buffer[256 * 1024];

/* ---- preparation ---- */

static void make_payload(uint8_t *payload, size_t size, bool text)
{
    /* Two, three and four bytes of UTF-8 among ASCII, as people write. */
    static const char words[] = "gr\u00fc\u00dfe an alle \u2013 \u901f\u5ea6 \u2713 \U0001f680 ";
    if (!text) {
        RAND_bytes(payload, (int)size);
        return;
    }
    size_t filled = 0;
    while (filled + sizeof words - 1 <= size) {
        memcpy(payload + filled, words, sizeof words - 1);
        filled += sizeof words - 1;
    }
    memset(payload + filled, '.', size - filled);
}

static void make_frames(struct client *client, bool text)
{
    uint8_t *payload = malloc(client->size + 1);
    client->frame_length = MAX_HEADER + client->size;
    client->burst = malloc(client->frame_length * client->in_flight);
    if (!payload || !client->burst)
        fail("no memory for %u messages of %zu bytes", client->in_flight, client->size);
    make_payload(payload, client->size, text);
    client->payload = payload;
    client->opcode = text ? TEXT : BINARY;
    uint8_t *to = client->burst;
    for (unsigned i = 0; i < client->in_flight; i++) {
        uint8_t mask[4];
        RAND_bytes(mask, sizeof mask);
        size_t header = write_frame_header(to, client->opcode, client->size, mask);
        apply_mask(to + header, payload, client->size, mask);
        client->frame_length = header + client->size;
        to += client->frame_length;
    }
}

static void make_request(struct client *client, const char *path, unsigned port)
{
    uint8_t nonce[16];
    char key[KEY_LENGTH + 1];
    RAND_bytes(nonce, sizeof nonce);
    EVP_EncodeBlock((unsigned char *)key, nonce, sizeof nonce);
    accept_for_key(key, client->accept);
    int length = snprintf(client->request, sizeof client->request,
                          "GET %s HTTP/1.1\r\nHost: localhost:%u\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
                          "Sec-WebSocket-Version: 13\r\n\r\n",
                          path, port, key);
    if (length < 0 || (size_t)length >= sizeof client->request)
        fail("--path is too long");
    client->request_length = (size_t)length;
}

/* OpenSSL calls this for each ticket. A ticket is used once (RFC 8446, appendix C.4), so each
 * connection keeps the newest of its own for the one that takes its place. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct connection *connection = SSL_get_app_data(ssl);
    SSL_SESSION_free(connection->session);
    connection->session = session;
    return 1;
}

/* The chain of the first connection is verified in full. That the others show the same leaf, byte
 * for byte, is as good, and costs the load generator a signature less for each handshake; each
 * still proves with its own signature that it has the key. */
static int verify_once(X509_STORE_CTX *store, void *client_)
{
    struct client *client = client_;
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    if (client->leaf)
        return X509_cmp(leaf, client->leaf) == 0;
    if (X509_verify_cert(store) != 1)
        return 0;
    X509_up_ref(leaf);
    client->leaf = leaf;
    return 1;
}

static void make_client_context(struct client *client, const char *ca_file)
{
    SSL_CTX *context = make_context(TLS_client_method());
    if (SSL_CTX_load_verify_locations(context, ca_file, NULL) != 1)
        fail("--ca %s cannot be read", ca_file);
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    if (SSL_CTX_set_ciphersuites(context, client->suite) != 1)
        fail("--suite: OpenSSL knows no TLS 1.3 suite '%s'", client->suite);
    if (SSL_CTX_set1_groups_list(context, client->group) != 1)
        fail("--group: OpenSSL knows no group '%s'", client->group);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(context, verify_once, client);
    X509_VERIFY_PARAM_set1_host(SSL_CTX_get0_param(context), "localhost", 0);
    if (client->resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT
                                                    | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    } else {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    }
    /* Ten thousand silent connections would hold read-ahead buffers of 650 MB. */
    if (client->count > 2000)
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    client->context = context;
}

void client_prepare(struct client *client, const char *host, unsigned port, const char *path,
                    const char *ca_file, bool text)
{
    client->address.sin_family = AF_INET;
    client->address.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, host, &client->address.sin_addr) != 1)
        fail("--host is an IPv4 address, not '%s'", host);
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    client->connections = calloc(client->count, sizeof *client->connections);
    if (client->epoll < 0 || !client->connections)
        fail("no memory for %u connections", client->count);
    uint64_t descriptors = raise_descriptors();
    if (descriptors < client->count + 64)
        fail("%u connections need more than the %llu descriptors that are allowed here",
             client->count, (unsigned long long)descriptors);
    make_client_context(client, ca_file);
    make_request(client, path, port);
    make_frames(client, text);
}

/* ---- one connection ---- */

static void arm(struct client *client, struct connection *connection, uint32_t events)
{
    if (connection->armed == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = connection};
    int operation = connection->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(client->epoll, operation, connection->fd, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
    connection->armed = events;
}

static int make_socket(const struct client *client, unsigned index)
{
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (client->source_addresses > 1) {
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + index % client->source_addresses);
        /* The port is chosen at connect, when all four of its coordinates are known. */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&source, sizeof source) != 0)
            fail("bind to a source address: %s", strerror(errno));
    }
    return fd;
}

void client_connect(struct client *client, unsigned index)
{
    struct connection *connection = &client->connections[index];
    uint64_t *sent = connection->sent;
    SSL_SESSION *session = connection->session;
    *connection = (struct connection){.sent = sent, .session = session, .started = now_ns()};
    if (!sent && !(connection->sent = malloc(client->in_flight * sizeof *sent)))
        fail("no memory for a connection");
    connection->fd = make_socket(client, index);
    if (connect(connection->fd, (struct sockaddr *)&client->address, sizeof client->address) != 0
        && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    connection->ssl = SSL_new(client->context);
    connection->head = malloc(MAX_HEAD + 1);
    if (!connection->ssl || !connection->head)
        fail("no memory for a connection");
    SSL_set_fd(connection->ssl, connection->fd);
    SSL_set_connect_state(connection->ssl);
    SSL_set_tlsext_host_name(connection->ssl, "localhost");
    SSL_set_app_data(connection->ssl, connection);
    if (session)
        SSL_set_session(connection->ssl, session);
    connection->state = CONNECTING;
    arm(client, connection, EPOLLOUT);
}

void client_drop(struct connection *connection)
{
    if (connection->state == UNUSED)
        return;
    if (connection->state >= OPENING)
        SSL_shutdown(connection->ssl); /* sends close_notify; its result changes nothing */
    ERR_clear_error();
    SSL_free(connection->ssl);
    close(connection->fd);
    free(connection->head);
    connection->head = NULL;
    connection->state = UNUSED;
}

static bool next_output(struct client *client, struct connection *connection)
{
    if (connection->control_length > 0) {
        memcpy(connection->control_out, connection->control, connection->control_length);
        connection->out = connection->control_out;
        connection->out_left = connection->control_length;
        connection->control_length = 0;
    } else if (connection->due > 0) {
        connection->out = client->burst;
        connection->out_left = connection->due * client->frame_length;
        connection->due = 0;
    }
    return connection->out_left > 0;
}

static void flush(struct client *client, struct connection *connection)
{
    while (connection->out_left > 0 || next_output(client, connection)) {
        ssize_t done = tls_write(connection->ssl, connection->out, connection->out_left);
        if (done == WANTS_READ || done == WANTS_WRITE) {
            arm(client, connection, EPOLLIN | EPOLLOUT);
            return;
        }
        if (done < 0)
            fail("a connection broke while it was written to: %s", tls_error(connection->ssl));
        connection->out += done;
        connection->out_left -= (size_t)done;
    }
    arm(client, connection, EPOLLIN);
}

void client_send(struct client *client, struct connection *connection, unsigned messages)
{
    uint64_t now = now_ns();
    for (unsigned i = 0; i < messages; i++)
        connection->sent[(connection->oldest + connection->flying++) % client->in_flight] = now;
    connection->due += messages;
    if (connection->out_left == 0)
        flush(client, connection);
}

static void send_control(struct client *client, struct connection *connection, uint8_t opcode,
                         const uint8_t *payload, size_t length)
{
    static const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
    size_t header = write_frame_header(connection->control, opcode, length, mask);
    apply_mask(connection->control + header, payload, length, mask);
    connection->control_length = header + length;
    if (connection->out_left == 0)
        flush(client, connection);
}

void client_close(struct client *client, struct connection *connection)
{
    static const uint8_t normal[2] = {1000 >> 8, 1000 & 0xff};
    connection->state = CLOSING;
    send_control(client, connection, CLOSE, normal, sizeof normal);
}

/* ---- opening ---- */

static void note_facts(struct client *client, SSL *ssl)
{
    struct tls_facts facts = {0};
    snprintf(facts.version, sizeof facts.version, "%s", SSL_get_version(ssl));
    snprintf(facts.suite, sizeof facts.suite, "%s", SSL_get_cipher_name(ssl));
    const char *group = OBJ_nid2sn((int)SSL_get_negotiated_group(ssl));
    snprintf(facts.group, sizeof facts.group, "%s", group ? group : "none");
    client->answered_resumed = SSL_session_reused(ssl);
    if (!client->have_facts)
        client->facts = facts;
    else if (memcmp(&facts, &client->facts, sizeof facts) != 0)
        fail("connections differ: %s %s %s and %s %s %s", facts.version, facts.suite, facts.group,
             client->facts.version, client->facts.suite, client->facts.group);
    client->have_facts = true;
}

static bool field_is(const char *head, const char *name, const char *wanted)
{
    size_t length;
    const char *value = find_field(head, name, &length);
    return value && length == strlen(wanted) && strncasecmp(value, wanted, length) == 0;
}

static void check_answer(const struct client *client, const char *head)
{
    if (strncmp(head, "HTTP/1.1 101", 12) != 0)
        fail("the opening was refused: %.*s", (int)strcspn(head, "\r\n"), head);
    size_t length;
    const char *accept = find_field(head, "Sec-WebSocket-Accept", &length);
    if (!accept || length != ACCEPT_LENGTH || memcmp(accept, client->accept, length) != 0)
        fail("the server's Sec-WebSocket-Accept is wrong");
    if (!field_is(head, "Upgrade", "websocket"))
        fail("the server's answer has no Upgrade: websocket");
    if (find_field(head, "Sec-WebSocket-Extensions", &length))
        fail("the server agreed to an extension that was not offered");
}

/* The number of bytes that belong to the head; the rest are frames. */
static size_t take_head(struct client *client, struct connection *connection,
                        const uint8_t *data, size_t length, uint64_t now)
{
    size_t before = connection->head_length;
    size_t room = MAX_HEAD - before;
    size_t taken = length < room ? length : room;
    memcpy(connection->head + before, data, taken);
    connection->head_length += taken;
    connection->head[connection->head_length] = '\0';
    char *end = strstr(connection->head, "\r\n\r\n");
    if (!end) {
        if (taken == room)
            fail("the server's answer has no end within %d bytes", MAX_HEAD);
        return taken;
    }
    size_t head_length = (size_t)(end + 4 - connection->head);
    end[2] = '\0';
    check_answer(client, connection->head);
    free(connection->head);
    connection->head = NULL;
    connection->state = OPEN;
    client->on_open(client, connection, now);
    return head_length - before;
}

static void continue_handshake(struct client *client, struct connection *connection)
{
    ssize_t done = tls_handshake(connection->ssl);
    if (done == WANTS_READ || done == WANTS_WRITE) {
        arm(client, connection, done == WANTS_READ ? EPOLLIN : EPOLLOUT);
        return;
    }
    if (done < 0)
        fail("a TLS handshake failed: %s", tls_error(connection->ssl));
    note_facts(client, connection->ssl);
    connection->state = OPENING;
    connection->out = (const uint8_t *)client->request;
    connection->out_left = client->request_length;
    flush(client, connection);
}

static void finish_connect(struct client *client, struct connection *connection)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0)
        fail("connection %td was refused: %s", connection - client->connections, strerror(error));
    connection->state = HANDSHAKING;
    continue_handshake(client, connection);
}

/* ---- reading ---- */

static void end_connection(struct client *client, struct connection *connection, uint64_t now)
{
    if (connection->state != CLOSING)
        fail("the server ended a connection");
    client_drop(connection);
    client->on_closed(client, connection, now);
}

static unsigned take_bytes(struct client *client, struct connection *connection,
                           const uint8_t *data, size_t length, uint64_t now)
{
    if (connection->state == OPENING) {
        size_t taken = take_head(client, connection, data, length, now);
        data += taken;
        length -= taken;
    }
    if (length == 0)
        return 0;
    struct received received = receive_frames(&connection->incoming, client, data, length);
    if (received.ping && connection->state == OPEN)
        send_control(client, connection, PONG, connection->incoming.control,
                     connection->incoming.control_length);
    if (received.close && connection->state != CLOSING) {
        const uint8_t *code = connection->incoming.control;
        fail("the server closed a connection, code %u",
             connection->incoming.control_length < 2 ? 1005u : code[0] * 256u + code[1]);
    }
    return received.messages;
}

static void read_all(struct client *client, struct connection *connection, uint64_t now)
{
    unsigned messages = 0;
    /* What is in the buffer is all there was; asking the socket again would cost a system call
     * that mostly answers "nothing". */
    do {
        ssize_t done = tls_read(connection->ssl, read_buffer, sizeof read_buffer);
        if (done == ENDED || (done == BROKEN && connection->state == CLOSING)) {
            end_connection(client, connection, now);
            return;
        }
        if (done == BROKEN)
            fail("a connection broke: %s", tls_error(connection->ssl));
        if (done < 0)
            break;
        messages += take_bytes(client, connection, read_buffer, (size_t)done, now);
    } while (SSL_has_pending(connection->ssl));
    if (messages > 0)
        client->on_messages(client, connection, messages, now);
}

static void step(struct client *client, struct connection *connection, uint32_t events,
                 uint64_t now)
{
    if (connection->state == CONNECTING) {
        finish_connect(client, connection);
        return;
    }
    if (connection->state == HANDSHAKING) {
        continue_handshake(client, connection);
        return;
    }
    if (events & EPOLLOUT)
        flush(client, connection);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_all(client, connection, now);
}

void client_turn(struct client *client, uint64_t until)
{
    struct epoll_event events[EVENTS_PER_TURN];
    uint64_t now = now_ns();
    int wait = now >= until ? 0 : (int)((until - now + 999999) / 1000000);
    int count = epoll_wait(client->epoll, events, EVENTS_PER_TURN, wait);
    if (count < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        step(client, events[i].data.ptr, events[i].events, now_ns());
}
