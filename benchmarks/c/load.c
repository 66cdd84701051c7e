/* The load generator: TLS connections to one WebSocket server, from one thread.
 *
 *   load --port P --ca FILE --mode echo|fanout|handshake|idle [options below]
 *
 * echo       each connection keeps --in-flight messages under way; each reply is answered with
 *            the next message, the replies of one read with as many in one write.
 * fanout     connection 0 sends, the server sends it to all; the next when all have it.
 * handshake  --connections at a time open, close in order and are replaced.
 * idle       opens all, says so with a line of its own, holds them and answers pings.
 *
 * Opening and --warmup are not measured. What is measured goes to stdout as one JSON object:
 * one "operation" is an echo, a delivery or a handshake. The server's CPU is that of the
 * processes of --server-pids, from the first to the last moment of the window; they are read
 * here, because here the window begins and ends. Any fault ends the program with exit status 1
 * and one line on stderr; nothing takes longer than --timeout.
 */
#include "client.h"
#include "common.h"
#include "histogram.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PIDS 256
#define SETTLING 500000000u /* nanoseconds between opening and the first broadcast */

enum mode { ECHO, FANOUT, HANDSHAKE, IDLE };
static const char *const mode_names[] = {"echo", "fanout", "handshake", "idle"};

struct load {
    enum mode mode;
    const char *host, *path, *ca_file;
    unsigned port;
    bool text;
    unsigned opening_at_once;
    uint64_t warmup, seconds, timeout;
    pid_t pids[MAX_PIDS];
    unsigned pid_count;

    uint64_t deadline; /* of the whole program */
    unsigned started, opened, closed;
    bool running; /* whether on_closed and on_messages go on */
    unsigned missing; /* fanout: who has not got the message yet */
    uint64_t round_began;
    uint64_t operations, resumed;
    struct histogram latency;
};

static struct load load = {
    .host = "127.0.0.1", .path = "/", .opening_at_once = 32,
    .warmup = 500000000, .seconds = 3000000000, .timeout = 60000000000,
};
static struct client client = {
    .count = 1, .size = 256, .in_flight = 1, .source_addresses = 1,
    .suite = "TLS_AES_256_GCM_SHA384", .group = "X25519",
};

/* ---- what each mode does ---- */

static void open_more(void)
{
    while (load.started < client.count && load.started - load.opened < load.opening_at_once)
        client_connect(&client, load.started++);
}

static void opened(struct client *unused, struct connection *connection, uint64_t now)
{
    (void)unused;
    load.opened++;
    if (load.mode != HANDSHAKE)
        return;
    histogram_add(&load.latency, now - connection->started);
    load.resumed += client.answered_resumed;
    client_close(&client, connection);
}

static void closed(struct client *unused, struct connection *connection, uint64_t now)
{
    (void)unused;
    (void)now;
    load.operations++;
    load.closed++;
    if (load.running)
        client_connect(&client, (unsigned)(connection - client.connections));
}

static void echoed(struct client *unused, struct connection *connection, unsigned count,
                   uint64_t now)
{
    (void)unused;
    if (count > connection->flying)
        fail("the server sent more messages than it was sent");
    for (unsigned i = 0; i < count; i++) {
        histogram_add(&load.latency, now - connection->sent[connection->oldest]);
        connection->oldest = (connection->oldest + 1) % client.in_flight;
    }
    connection->flying -= count;
    load.operations += count;
    if (load.running)
        client_send(&client, connection, count);
}

static void send_to_all(void)
{
    load.missing = client.count;
    load.round_began = now_ns();
    client.connections[0].flying = 0;
    client_send(&client, &client.connections[0], 1);
}

static void delivered(struct client *unused, struct connection *connection, unsigned count,
                      uint64_t now)
{
    (void)unused;
    (void)connection;
    if (count > load.missing)
        fail("the server delivered a message twice");
    load.operations += count;
    load.missing -= count;
    if (load.missing > 0)
        return;
    histogram_add(&load.latency, now - load.round_began);
    if (load.running)
        send_to_all();
}

static void unexpected(struct client *unused, struct connection *connection, unsigned count,
                       uint64_t now)
{
    (void)unused;
    (void)connection;
    (void)count;
    (void)now;
    fail("the server sent a message that nobody asked for");
}

/* ---- the run ---- */

static uint64_t server_cpu(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < load.pid_count; i++)
        sum += cpu_ns(load.pids[i]);
    return sum;
}

static void turn(uint64_t until, const char *doing)
{
    client_turn(&client, until < load.deadline ? until : load.deadline);
    if (now_ns() >= load.deadline)
        fail("timeout while %s: %u connections opened, %u closed, %llu operations", doing,
             load.opened, load.closed, (unsigned long long)load.operations);
}

static void run_for(uint64_t nanoseconds, const char *doing)
{
    uint64_t end = now_ns() + nanoseconds;
    do
        turn(end, doing);
    while (now_ns() < end);
}

/* All connections, for the modes that keep them. */
static void open_all(void)
{
    while (load.opened < client.count) {
        open_more();
        turn(load.deadline, "connections were opened");
    }
}

/* One connection in each place before the window, for the ticket that its successor uses. */
static void get_sessions(void)
{
    while (load.closed < client.count) {
        open_more();
        turn(load.deadline, "the first sessions were made");
    }
    for (unsigned i = 0; i < client.count; i++)
        if (!client.connections[i].session)
            fail("the server gave no session to resume");
}

static void begin(void)
{
    if (load.mode == HANDSHAKE) {
        if (client.resume)
            get_sessions();
    } else {
        open_all();
    }
    load.running = true;
    for (unsigned i = 0; i < client.count; i++) {
        if (load.mode == ECHO)
            client_send(&client, &client.connections[i], client.in_flight);
        if (load.mode == HANDSHAKE)
            client_connect(&client, i);
    }
    if (load.mode == FANOUT) {
        /* A server may know of its last connections only a moment after their 101. */
        run_for(SETTLING, "the server settled");
        send_to_all();
    }
}

static void print_facts(void)
{
    printf("\"mode\": \"%s\", \"connections\": %u, \"size\": %zu, \"in_flight\": %u, "
           "\"text\": %s, \"tls\": {\"version\": \"%s\", \"suite\": \"%s\", \"group\": \"%s\"}",
           mode_names[load.mode], client.count, client.size, client.in_flight,
           load.text ? "true" : "false", client.facts.version, client.facts.suite,
           client.facts.group);
}

static void print_open(void)
{
    printf("{\"event\": \"open\", ");
    print_facts();
    printf("}\n");
    fflush(stdout);
}

static void measure(void)
{
    load.operations = load.resumed = 0;
    histogram_reset(&load.latency);
    uint64_t server = server_cpu(), own = cpu_ns(0), began = now_ns();
    run_for(load.seconds, "measuring");
    double seconds = (double)(now_ns() - began) / 1e9;
    double own_seconds = (double)(cpu_ns(0) - own) / 1e9;
    double server_seconds = (double)(server_cpu() - server) / 1e9;
    double operations = (double)load.operations;
    if (load.operations == 0 && load.mode != IDLE)
        fail("nothing came back for %.1f s", seconds);
    printf("{\"event\": \"measured\", ");
    print_facts();
    printf(", \"seconds\": %.4f, \"operations\": %llu, \"per_second\": %.1f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"load_cpu_share\": %.3f",
           seconds, (unsigned long long)load.operations, operations / seconds,
           (double)histogram_percentile(&load.latency, 0.50) / 1e3,
           (double)histogram_percentile(&load.latency, 0.99) / 1e3, own_seconds / seconds);
    if (load.pid_count > 0) {
        printf(", \"server_cpu_share\": %.4f", server_seconds / seconds);
        if (load.operations > 0)
            printf(", \"server_cpu_us\": %.3f", server_seconds * 1e6 / operations);
    }
    if (load.mode == HANDSHAKE)
        printf(", \"resumed\": %llu", (unsigned long long)load.resumed);
    printf("}\n");
}

/* ---- the command line ---- */

static const struct option options[] = {
    {"host", required_argument, NULL, 'h'},       {"port", required_argument, NULL, 'p'},
    {"ca", required_argument, NULL, 'a'},         {"path", required_argument, NULL, 'u'},
    {"mode", required_argument, NULL, 'm'},       {"connections", required_argument, NULL, 'c'},
    {"size", required_argument, NULL, 'b'},       {"in-flight", required_argument, NULL, 'k'},
    {"text", no_argument, NULL, 't'},             {"seconds", required_argument, NULL, 's'},
    {"warmup", required_argument, NULL, 'w'},     {"timeout", required_argument, NULL, 'x'},
    {"opening", required_argument, NULL, 'o'},    {"resume", no_argument, NULL, 'r'},
    {"source-addresses", required_argument, NULL, 'i'},
    {"server-pids", required_argument, NULL, 'd'},
    {"suite", required_argument, NULL, 'q'},      {"group", required_argument, NULL, 'g'},
    {NULL, 0, NULL, 0},
};

static enum mode parse_mode(const char *text)
{
    for (unsigned i = 0; i < sizeof mode_names / sizeof *mode_names; i++)
        if (strcmp(text, mode_names[i]) == 0)
            return (enum mode)i;
    fail("--mode is echo, fanout, handshake or idle, not '%s'", text);
}

static void parse_pids(char *text)
{
    for (char *pid = strtok(text, ","); pid; pid = strtok(NULL, ",")) {
        if (load.pid_count == MAX_PIDS)
            fail("--server-pids names more than %d processes", MAX_PIDS);
        load.pids[load.pid_count++] = (pid_t)parse_number("server-pids", pid, 1, 1 << 30);
    }
}

static void parse_option(int option, char *text)
{
    switch (option) {
    case 'h': load.host = text; break;
    case 'p': load.port = (unsigned)parse_number("port", text, 1, 65535); break;
    case 'a': load.ca_file = text; break;
    case 'u': load.path = text; break;
    case 'm': load.mode = parse_mode(text); break;
    case 'c': client.count = (unsigned)parse_number("connections", text, 1, 100000); break;
    case 'b': client.size = (size_t)parse_number("size", text, 0, 1 << 24); break;
    case 'k': client.in_flight = (unsigned)parse_number("in-flight", text, 1, 4096); break;
    case 't': load.text = true; break;
    case 's': load.seconds = parse_seconds("seconds", text); break;
    case 'w': load.warmup = parse_seconds("warmup", text); break;
    case 'x': load.timeout = parse_seconds("timeout", text); break;
    case 'o': load.opening_at_once = (unsigned)parse_number("opening", text, 1, 4096); break;
    case 'r': client.resume = true; break;
    case 'i':
        client.source_addresses = (unsigned)parse_number("source-addresses", text, 1, 1 << 16);
        break;
    case 'q': client.suite = text; break;
    case 'g': client.group = text; break;
    case 'd': parse_pids(text); break;
    default: exit(2); /* getopt has said what is wrong */
    }
}

static void parse_arguments(int count, char **arguments)
{
    int option;
    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1)
        parse_option(option, optarg);
    if (optind < count)
        fail("what is '%s'?", arguments[optind]);
    if (load.port == 0 || !load.ca_file)
        fail("--port and --ca are needed");
    if (client.resume && load.mode != HANDSHAKE)
        fail("--resume goes with --mode handshake");
    if (load.seconds == 0)
        fail("--seconds is more than 0");
}

int main(int count, char **arguments)
{
    parse_arguments(count, arguments);
    load.deadline = now_ns() + load.timeout;
    client.on_open = opened;
    client.on_closed = closed;
    client.on_messages = load.mode == ECHO ? echoed : load.mode == FANOUT ? delivered : unexpected;
    client_prepare(&client, load.host, load.port, load.path, load.ca_file, load.text);
    begin();
    if (load.mode == IDLE)
        print_open();
    run_for(load.warmup, "warming up");
    measure();
    fflush(stdout);
    for (unsigned i = 0; i < client.count; i++)
        client_drop(&client.connections[i]);
    return 0;
}
