/* Prints its effective user: a program for the setuid bit. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    return printf("%u\n", (unsigned)geteuid()) < 0;
}
