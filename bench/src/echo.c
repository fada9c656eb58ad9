/* echo: what comes in goes out, as it comes. */
#include <unistd.h>

int main(void)
{
    static char buffer[1 << 18];
    ssize_t count;
    while ((count = read(0, buffer, sizeof buffer)) > 0)
        for (ssize_t at = 0, written; at < count; at += written)
            if ((written = write(1, buffer + at, (size_t)(count - at))) < 0) return 1;
    return count < 0;
}
