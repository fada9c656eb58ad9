#define _GNU_SOURCE
#include "tree.h"
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CHILDREN_FILE
#define CHILDREN_FILE "children" /* the tests give another name, to take the way of kernels without it */
#endif

enum {
    MAX_PID = 1 << 22,   /* the kernel's highest pid_max */
    MAX_VICTIMS = 65536, /* of one pass; more descendants take more passes */
    MAX_ROUNDS = 64,
};

static pid_t victims[MAX_VICTIMS], victim_count;
static unsigned char is_victim[MAX_PID / 8];

static void stop_victim(pid_t pid)
{
    if (pid <= 0 || pid >= MAX_PID || victim_count == MAX_VICTIMS || is_victim[pid / 8] & 1 << pid % 8) return;
    is_victim[pid / 8] |= (unsigned char)(1 << pid % 8);
    victims[victim_count++] = pid;
    kill(pid, SIGSTOP);  /* at once, before it can start another */
    kill(-pid, SIGSTOP); /* a group that it leads, in one step; its session is below the shim, so all of it is */
}

/* Stops the children of all threads of `pid`; 0 where the kernel has no such list (CONFIG_PROC_CHILDREN). */
static int stop_children(pid_t pid)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/task", pid);
    DIR *threads = opendir(name);
    int listed = 1, child;
    for (struct dirent *thread; threads && (thread = readdir(threads));) {
        if (thread->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "/proc/%d/task/%.16s/" CHILDREN_FILE, pid, thread->d_name);
        FILE *list = fopen(name, "re");
        while (list && fscanf(list, "%d", &child) == 1) stop_victim(child);
        if (list) fclose(list);
        else listed = 0;
    }
    if (threads) closedir(threads);
    return listed;
}

/* The slower way: every process of the machine whose parent is `root` or a victim. */
static void stop_by_parent(pid_t root)
{
    DIR *all = opendir("/proc");
    for (struct dirent *entry; all && (entry = readdir(all));) {
        char name[64], text[512] = "";
        int parent = 0, pid = atoi(entry->d_name);
        snprintf(name, sizeof name, "/proc/%d/stat", pid);
        FILE *file = pid > 0 ? fopen(name, "re") : NULL;
        if (!file) continue;
        text[fread(text, 1, sizeof text - 1, file)] = 0;
        fclose(file);
        const char *rest = strrchr(text, ')'); /* the last one: a program's name may hold more of them */
        if (!rest || sscanf(rest + 1, " %*c %d", &parent) != 1 || parent <= 0 || parent >= MAX_PID) continue;
        if (parent == root || is_victim[parent / 8] & 1 << parent % 8) stop_victim(pid);
    }
    if (all) closedir(all);
}

/* Stops the whole tree: a fork bomb loses nothing by the death of some, but cannot fork while all are stopped. The list
 * of children is only exact for stopped ones (proc(5)), so look until nothing new is seen. A victim's thread without a
 * list may have ended; `root` has one thread and is not reaped, so where that has none, no process has. */
static void stop_tree(pid_t root)
{
    int before = -1;
    for (int round = 0; victim_count != before && round < MAX_ROUNDS; round++) {
        before = victim_count;
        int listed = stop_children(root);
        for (int i = 0; listed && i < victim_count; i++) stop_children(victims[i]);
        if (!listed) stop_by_parent(root);
    }
}

void kill_tree(pid_t root, pid_t group)
{
    char self[16] = "";
    /* where it may, ahead of what it has to stop: a thousand of them leave it a thousandth of the time */
    int ahead = syscall(SYS_sched_getscheduler, 0) == SCHED_OTHER /* the calls, as musl's functions refuse */
                && syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &(int){ 1 }) == 0;
    if (root != getpid()) stop_victim(root);
    if (root == 1) kill(-1, SIGKILL); /* one step for the kernel, and it reaches what was injected too */
    else if (readlink("/proc/self", self, sizeof self - 1) > 0 && atoi(self) == getpid()) stop_tree(root);
    else if (group) kill(-group, SIGKILL); /* no /proc, or one of another pid namespace: its numbers are not ours */
    for (; victim_count > 0; is_victim[victims[victim_count] / 8] = 0) kill(victims[--victim_count], SIGKILL);
    if (ahead) syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &(int){ 0 });
}
