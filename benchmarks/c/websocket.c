#include "websocket.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

static uint64_t read_big_endian(const uint8_t *data, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | data[i];
    return value;
}

static bool is_known_opcode(uint8_t opcode)
{
    return opcode <= BINARY || (opcode >= CLOSE && opcode <= PONG);
}

int parse_frame_header(const uint8_t *data, size_t available, struct frame_header *header)
{
    if (available < 2)
        return 0;
    header->fin = data[0] & 0x80;
    header->opcode = data[0] & 0x0f;
    header->masked = data[1] & 0x80;
    uint8_t length = data[1] & 0x7f;
    unsigned extended = length == 127 ? 8 : length == 126 ? 2 : 0;
    unsigned size = 2 + extended + (header->masked ? 4 : 0);
    bool control = header->opcode >= CLOSE;
    if (data[0] & 0x70 || !is_known_opcode(header->opcode)
        || (control && (!header->fin || length > MAX_CONTROL)))
        return -1;
    if (available < size)
        return 0;
    header->length = extended ? read_big_endian(data + 2, extended) : length;
    if (header->length >> 63)
        return -1;
    if (header->masked)
        memcpy(header->mask, data + size - 4, 4);
    return (int)size;
}

size_t write_frame_header(uint8_t *to, uint8_t opcode, uint64_t length, const uint8_t *mask)
{
    uint8_t mask_bit = mask ? 0x80 : 0;
    unsigned extended = length > 0xffff ? 8 : length > MAX_CONTROL ? 2 : 0;
    to[0] = (uint8_t)(0x80 | opcode);
    to[1] = (uint8_t)(mask_bit | (extended == 8 ? 127 : extended == 2 ? 126 : length));
    for (unsigned i = 0; i < extended; i++)
        to[2 + i] = (uint8_t)(length >> (8 * (extended - 1 - i)));
    if (!mask)
        return 2 + extended;
    memcpy(to + 2 + extended, mask, 4);
    return 2 + extended + 4;
}

void apply_mask(uint8_t *to, const uint8_t *from, size_t length, const uint8_t mask[4])
{
    uint32_t word;
    memcpy(&word, mask, 4);
    uint64_t wide = (uint64_t)word << 32 | word;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t piece;
        memcpy(&piece, from + i, 8);
        piece ^= wide;
        memcpy(to + i, &piece, 8);
    }
    for (; i < length; i++)
        to[i] = from[i] ^ mask[i % 4];
}

void accept_for_key(const char key[KEY_LENGTH], char accept[ACCEPT_LENGTH + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* section 1.3 */
    uint8_t text[KEY_LENGTH + sizeof guid - 1], digest[SHA_DIGEST_LENGTH];
    memcpy(text, key, KEY_LENGTH);
    memcpy(text + KEY_LENGTH, guid, sizeof guid - 1);
    SHA1(text, sizeof text, digest);
    EVP_EncodeBlock((unsigned char *)accept, digest, sizeof digest);
}

const char *find_field(const char *head, const char *name, size_t *length)
{
    size_t name_length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (strncasecmp(line, name, name_length) != 0 || line[name_length] != ':')
            continue;
        const char *value = line + name_length + 1;
        value += strspn(value, " \t");
        *length = strcspn(value, " \t\r");
        return value;
    }
    return NULL;
}
