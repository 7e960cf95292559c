/* Doubly linked lists whose links stand within their members. A zeroed link is on no list. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "vmm/base/cleanup.h"

/* A link, and the head of a list, whose next is the first member. */
struct list {
    struct list *next;
    struct list *previous;
};

static inline void list_init(struct list *head)
{
    head->next = head->previous = head;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

static inline bool list_is_linked(const struct list *link)
{
    return link->next != NULL;
}

static inline void list_append(struct list *head, struct list *link)
{
    link->next = head;
    link->previous = head->previous;
    head->previous->next = link;
    head->previous = link;
}

/* Fine when it is on no list. */
static inline void list_remove(struct list *link)
{
    if (link->next == NULL)
        return;
    link->next->previous = link->previous;
    link->previous->next = link->next;
    link->next = link->previous = NULL;
}

/* The first member, as the struct of `type` whose link is `member`; the list must not be empty. */
#define list_first(head, type, member) container_of((head)->next, type, member)
