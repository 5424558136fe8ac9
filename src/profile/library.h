/* What the files of the C side have of each other. */
#include <stddef.h>
#include <stdint.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* Begins the files of this process, whose names begin with `to`, or as before if that is null; 0 if
 * it is too long. Their names have the time, too: a process that another program's image replaces
 * keeps its number. */
HIDDEN int byssal_profile_begin_files(const char *to);

/* Writes the file, in place of the last: the final one, or one on the way. */
HIDDEN void byssal_profile_write_file(int final);

/* Writes it on the way, if it is time. So a process that is killed leaves what it was a quarter of
 * a second before its last sample, or longer where writing takes long. */
HIDDEN void byssal_profile_write_now_and_then(void);

/* Of profile.c: writes the final file, the first time that it is called. */
HIDDEN void byssal_profile_finish(void);

/* Of signals.c: looks for what it hands on to, and begins to handle the signals that end the process
 * if they are to be. */
HIDDEN void byssal_profile_begin_signals(int are_handled);
