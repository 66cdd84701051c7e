/* OpenSSL on non-blocking sockets, for both ends. */
#ifndef BENCH_TLS_H
#define BENCH_TLS_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <sys/types.h>

/* What a step of a stream can answer beside a number of bytes. */
enum { WANTS_READ = -1, WANTS_WRITE = -2, ENDED = -3, BROKEN = -4 };

/* A context whose connections read what the socket has in one system call. */
SSL_CTX *make_context(const SSL_METHOD *method);

/* Each answers bytes (or 1 for a handshake that is done), or one of the four above. */
ssize_t tls_handshake(SSL *ssl);
ssize_t tls_read(SSL *ssl, void *to, size_t room);
ssize_t tls_write(SSL *ssl, const void *from, size_t length);

/* Why the last step was BROKEN. Valid until the next call. */
const char *tls_error(SSL *ssl);

#endif
