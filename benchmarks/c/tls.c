#include "tls.h"

#include "common.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

SSL_CTX *make_context(const SSL_METHOD *method)
{
    SSL_CTX *context = SSL_CTX_new(method);
    if (!context)
        fail("OpenSSL makes no context");
    /* Without these two a record costs two system calls: one for its head, one for the rest. */
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, 64 * 1024 + 1024);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* A peer that ends without close_notify ends: lengths of messages show what is missing. */
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    return context;
}

static ssize_t outcome(SSL *ssl, int result)
{
    switch (SSL_get_error(ssl, result)) {
    case SSL_ERROR_NONE:
        return 1;
    case SSL_ERROR_WANT_READ:
        return WANTS_READ;
    case SSL_ERROR_WANT_WRITE:
        return WANTS_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return ENDED;
    case SSL_ERROR_SYSCALL:
        return errno == 0 ? ENDED : BROKEN;
    default:
        return BROKEN;
    }
}

/* SSL_get_error judges by the thread's error queue and errno, so both must be empty before. */
static void forget_errors(void)
{
    ERR_clear_error();
    errno = 0;
}

ssize_t tls_handshake(SSL *ssl)
{
    forget_errors();
    return outcome(ssl, SSL_do_handshake(ssl));
}

ssize_t tls_read(SSL *ssl, void *to, size_t room)
{
    size_t done;
    forget_errors();
    int result = SSL_read_ex(ssl, to, room, &done);
    return result == 1 ? (ssize_t)done : outcome(ssl, result);
}

ssize_t tls_write(SSL *ssl, const void *from, size_t length)
{
    size_t done;
    forget_errors();
    int result = SSL_write_ex(ssl, from, length, &done);
    return result == 1 ? (ssize_t)done : outcome(ssl, result);
}

const char *tls_error(SSL *ssl)
{
    static char text[256];
    int system_error = errno;
    unsigned long error = ERR_peek_last_error();
    long verdict = SSL_get_verify_result(ssl);
    if (verdict != X509_V_OK)
        return X509_verify_cert_error_string(verdict);
    if (error == 0)
        return system_error ? strerror(system_error) : "the connection ended";
    ERR_error_string_n(error, text, sizeof text);
    return text;
}
