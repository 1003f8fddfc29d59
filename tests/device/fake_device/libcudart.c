/* A CUDA runtime without a GPU: memory is the host's, and time is a number that work moves on. Work is done when it is
   put on a stream; an event that nobody has waited for cannot be read, so that a forgotten wait shows. */
#include <stdlib.h>
#include <string.h>

typedef struct { double now_us, captured_us; int is_capturing, flags; } Stream;
typedef struct { double at_us; int is_recorded, is_waited_for; } Event;
typedef struct { double us; } Graph;

enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, NOT_READY = 600, CAPTURE = 901 };
static size_t left = (size_t)1 << 30;
static int last = SUCCESS;
static Stream streams[64];
static int num_streams = 0;

static int told(int code) { if (code) last = code; return code; }

int cudaGetDeviceCount(int *count) { *count = getenv("FAKE_NO_GPU") ? 0 : 1; return SUCCESS; }
int cudaSetDevice(int index) { return told(index ? INVALID : SUCCESS); }
int cudaDeviceGetAttribute(int *value, int kind, int index) {
    *value = kind == 75 ? 7 : kind == 76 ? 2 : -1;
    return told(index ? INVALID : SUCCESS);
}
int cudaDeviceGetPCIBusId(char *text, int length, int index) { strncpy(text, "0000:00:00.0", length); return index; }
int cudaDriverGetVersion(int *version) { *version = 11040; return SUCCESS; }
int cudaRuntimeGetVersion(int *version) { *version = 11040; return SUCCESS; }
int cudaGetDeviceProperties(void *properties, int index) { strcpy(properties, "Fake Xavier"); return index; }
int cudaMemGetInfo(size_t *free_bytes, size_t *total) { *free_bytes = left; *total = (size_t)1 << 30; return SUCCESS; }
int cudaGetLastError(void) { int code = last; last = SUCCESS; return code; }
const char *cudaGetErrorString(int code) {
    return code == OUT_OF_MEMORY ? "out of memory" : code == NOT_READY ? "device not ready" : code ? "invalid" : "none";
}

int cudaMalloc(void **address, size_t size) {
    if (size > left) return told(OUT_OF_MEMORY);
    size_t *block = calloc(1, size + 16);
    block[0] = size;
    left -= size;
    *address = (char *)block + 16;
    return SUCCESS;
}
int cudaFree(void *address) {
    if (!address) return SUCCESS;
    size_t *block = (size_t *)((char *)address - 16);
    left += block[0];
    free(block);
    return SUCCESS;
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    if (kind != 1 && kind != 2) return told(INVALID);
    memcpy(to, from, size);
    return SUCCESS;
}

int cudaStreamCreateWithFlags(void **stream, unsigned flags) {
    if (num_streams == 64) return told(INVALID);
    streams[num_streams].flags = flags;
    *stream = &streams[num_streams++];
    return SUCCESS;
}
int cudaStreamDestroy(void *stream) { return stream ? SUCCESS : told(INVALID); }
int cudaStreamSynchronize(void *stream) { return ((Stream *)stream)->is_capturing ? told(CAPTURE) : SUCCESS; }
int cudaEventCreateWithFlags(void **event, unsigned flags) {
    *event = calloc(1, sizeof(Event));
    return flags ? told(INVALID) : SUCCESS;
}
int cudaEventDestroy(void *event) { free(event); return SUCCESS; }
int cudaEventRecord(void *event, void *stream) {
    Event *one = event;
    one->at_us = ((Stream *)stream)->now_us;
    one->is_recorded = 1;
    one->is_waited_for = 0;
    return SUCCESS;
}
int cudaEventSynchronize(void *event) {
    Event *one = event;
    if (!one->is_recorded) return told(INVALID);
    one->is_waited_for = 1;
    return SUCCESS;
}
int cudaEventElapsedTime(float *milliseconds, void *begin, void *end) {
    if (!((Event *)end)->is_waited_for) return told(NOT_READY);
    *milliseconds = (float)((((Event *)end)->at_us - ((Event *)begin)->at_us) / 1e3);
    return SUCCESS;
}

int cudaStreamBeginCapture(void *stream, int mode) {
    Stream *one = stream;
    one->is_capturing = 1;
    one->captured_us = 0;
    return mode == 1 ? SUCCESS : told(INVALID);
}
int cudaStreamEndCapture(void *stream, void **graph) {
    Stream *one = stream;
    one->is_capturing = 0;
    if (getenv("FAKE_NO_CAPTURE")) return told(CAPTURE);
    Graph *made = malloc(sizeof(Graph));
    made->us = one->captured_us;
    *graph = made;
    return SUCCESS;
}
int cudaGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    Graph *made = malloc(sizeof(Graph));
    *made = *(Graph *)graph;
    *executable = made;
    return flags ? told(INVALID) : SUCCESS;
}
int cudaGraphLaunch(void *executable, void *stream) {
    ((Stream *)stream)->now_us += ((Graph *)executable)->us;
    return SUCCESS;
}
int cudaGraphDestroy(void *graph) { free(graph); return SUCCESS; }
int cudaGraphExecDestroy(void *executable) { free(executable); return SUCCESS; }

/* What an engine does: so many microseconds of work. */
int fake_work(void *stream, double us) {
    Stream *one = stream;
    if (one->is_capturing) one->captured_us += us;
    else one->now_us += us;
    return SUCCESS;
}
/* Sets the clock of all streams. */
void fake_set_clock(double us) {
    for (int index = 0; index < num_streams; index++) streams[index].now_us = us;
}
