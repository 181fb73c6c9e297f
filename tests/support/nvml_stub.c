/* Stub of libnvidia-ml.so.1 with the functions that pynvml calls, configured by environment variables.
 * NVML_STUB_DEVICES: number of devices. NVML_STUB_FAILS: "init", "count", "memory" or "counters" (of the first device),
 * "events" (no event set).
 * NVML_STUB_LOST: a file; while it exists, calls for the first device return NVML_ERROR_GPU_IS_LOST.
 * NVML_STUB_ECC: a file with the number of uncorrected errors of the first device; 0 without it.
 * NVML_STUB_XID: a file with the code of an Xid error of the first device; it is removed when the error is returned. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, UNKNOWN = 999 };

struct memory { unsigned long long total, free, used; };
struct device { unsigned index; };
struct rates { unsigned gpu, memory; };
struct event { struct device *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };

static struct device devices[16];

static int fails(const char *what) {
    const char *failing = getenv("NVML_STUB_FAILS");
    return failing && strcmp(failing, what) == 0;
}

/* The number in the file that the variable names, 0 if there is no such file. */
static unsigned long long number_in(const char *variable) {
    const char *path = getenv(variable);
    FILE *file = path ? fopen(path, "r") : NULL;
    unsigned long long number = 0;
    if (file) {
        if (fscanf(file, "%llu", &number) != 1) number = 0;
        fclose(file);
    }
    return number;
}

static int without_counters(struct device *device) { return device->index == 0 && fails("counters"); }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return fails("init") ? DRIVER_NOT_LOADED : SUCCESS; }

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case NOT_SUPPORTED: return "Not Supported";
        case TIMEOUT: return "Timeout";
        case GPU_IS_LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    const char *wanted = getenv("NVML_STUB_DEVICES");
    *count = wanted ? (unsigned)atoi(wanted) : 0;
    return fails("count") ? UNKNOWN : SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **device) {
    const char *lost = getenv("NVML_STUB_LOST");
    if (index == 0 && lost && access(lost, F_OK) == 0) return GPU_IS_LOST;
    devices[index].index = index;
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *memory) {
    if (device->index == 0 && fails("memory")) return NOT_SUPPORTED;
    memory->total = 80ULL << 30;
    memory->used = (unsigned long long)(device->index + 1) << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetName(struct device *device, char *name, unsigned length) {
    return snprintf(name, length, "Stub %u", device->index) < 0 ? UNKNOWN : SUCCESS;
}

int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned length) {
    return snprintf(uuid, length, "GPU-stub-%u", device->index) < 0 ? UNKNOWN : SUCCESS;
}

int nvmlDeviceGetUtilizationRates(struct device *device, struct rates *rates) {
    rates->gpu = 50 + device->index;
    rates->memory = 25;
    return without_counters(device) ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetTemperature(struct device *device, int sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 60 + device->index;
    return without_counters(device) ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetPowerUsage(struct device *device, unsigned *milliwatts) {
    *milliwatts = 250500;
    return without_counters(device) ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(struct device *device, int type, int counter, unsigned long long *count) {
    if (type != 1 || counter != 0) return UNKNOWN; /* not: uncorrected, volatile */
    *count = device->index == 0 ? number_in("NVML_STUB_ECC") : 0;
    return without_counters(device) ? NOT_SUPPORTED : SUCCESS;
}

int nvmlEventSetCreate(struct device ***set) {
    static struct device *registered[16];
    *set = registered;
    return fails("events") ? UNKNOWN : SUCCESS;
}

int nvmlEventSetFree(struct device **set) { (void)set; return SUCCESS; }

int nvmlDeviceGetSupportedEventTypes(struct device *device, unsigned long long *types) {
    (void)device;
    *types = 8;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, struct device **set) {
    if (types != 8) return UNKNOWN; /* not: critical Xid errors */
    set[device->index] = device;
    return SUCCESS;
}

int nvmlEventSetWait_v2(struct device **set, struct event *event, unsigned milliseconds) {
    (void)milliseconds;
    event->data = number_in("NVML_STUB_XID");
    if (event->data == 0 || set[0] == NULL) return TIMEOUT;
    unlink(getenv("NVML_STUB_XID"));
    event->device = set[0];
    event->type = 8;
    return SUCCESS;
}
