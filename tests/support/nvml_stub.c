/* A driver without GPUs behind it: what pynvml calls of libnvidia-ml.so.1, told by the environment.
 * NVML_STUB_DEVICES: how many there are. NVML_STUB_FAILS: "init", "count", or "memory" (of the first device).
 * NVML_STUB_LOST: a file; while it exists the first device is lost, as one that fell off the bus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999 };

struct memory { unsigned long long total, free, used; };
struct device { unsigned index; };

static struct device devices[16];

static int fails(const char *what) {
    const char *failing = getenv("NVML_STUB_FAILS");
    return failing && strcmp(failing, what) == 0;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return fails("init") ? DRIVER_NOT_LOADED : SUCCESS; }

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case NOT_SUPPORTED: return "Not Supported";
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
