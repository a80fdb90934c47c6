"""What adb, Android and benchmark_model print, as public sources show it; each text names its source.

Only these texts are known to us: no phone was ever connected to a machine of this project.
"""

# Printed lines are as long as they are.
# ruff: noqa: E501

from __future__ import annotations

# https://gist.github.com/Rexhaif/a73d899a8ae837f9a3b4cbdd5653d71d (albert_base.tflite on a phone, 2021)
CPU_OLD = """STARTING!
Log parameter values verbosely: [0]
Num threads: [1]
Graph: [/data/local/tmp/albert_base.tflite]
#threads used for CPU inference: [1]
Loaded model /data/local/tmp/albert_base.tflite
INFO: Initialized TensorFlow Lite runtime.
The input model file size (MB): 11.983
Initialized session in 20.283ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=2 first=339304 curr=266325 min=266325 max=339304 avg=302814 std=36489

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=266601 curr=266931 min=265837 max=268116 avg=266473 std=419

Inference timings in us: Init: 20283, First inference: 339304, Warmup (avg): 302814, Inference (avg): 266473
"""

# https://github.com/google/XNNPACK/issues/999 (a Raspberry Pi; --use_xnnpack=true is answered alike on phones), the line
# about memory as in https://github.com/ARM-software/armnn/issues/541
XNNPACK = """STARTING!
Log parameter values verbosely: [0]
Num threads: [4]
Graph: [yolo_best_recall_int8_static.tflite]
#threads used for CPU inference: [4]
Use xnnpack: [1]
Loaded model yolo_best_recall_int8_static.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
XNNPACK delegate created.
Explicitly applied XNNPACK delegate, and the model graph will be partially executed by the delegate w/ 1 delegate kernels.
The input model file size (MB): 3.67827
Initialized session in 49.438ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=10 first=65683 curr=53045 min=52869 max=65683 avg=54366.2 std=3778

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=54830 curr=53318 min=52522 max=113361 avg=55744.2 std=9900

Inference timings in us: Init: 49438, First inference: 65683, Warmup (avg): 54366.2, Inference (avg): 55744.2
Peak memory footprint (MB): init=1.32812 overall=1.32812
"""

# https://github.com/tensorflow/tensorflow/issues/43541 (denoising_32bit.tflite on a phone, whole on its GPU)
GPU = """STARTING!
Num threads: [4]
Graph: [/data/local/tmp/tflite/denoising_32bit.tflite]
Use gpu: [1]
Loaded model /data/local/tmp/tflite/denoising_32bit.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite delegate for GPU.
INFO: Initialized OpenCL-based API.
INFO: Created 1 GPU delegate kernels.
Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
The input model file size (MB): 7.07479
Initialized session in 870.557ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=4 first=130565 curr=120829 min=117370 max=130565 avg=122373 std=4930

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=119212 curr=118055 min=113737 max=124776 avg=119375 std=1948

Inference timings in us: Init: 870557, First inference: 130565, Warmup (avg): 122373, Inference (avg): 119375
"""

# The one line of the same tool for a graph that the GPU takes in part: benchmark_tflite_model.cc of
# https://github.com/google-ai-edge/LiteRT, with the count of operations as in
# https://github.com/tensorflow/tensorflow/issues/70664 (there 290 of 290).
GPU_PARTIAL = GPU.replace(
    "INFO: Created 1 GPU delegate kernels.\n",
    "INFO: Replacing 54 out of 559 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions\n",
).replace("completely executed by the delegate.", "partially executed by the delegate w/ 3 delegate kernels.")

# gpu_delegate_provider.cc of https://github.com/tensorflow/tensorflow: no delegate, and the tool goes on by itself.
GPU_UNSUPPORTED = CPU_OLD.replace(
    "INFO: Initialized TensorFlow Lite runtime.\n",
    "INFO: Initialized TensorFlow Lite runtime.\nWARN: GPU acceleration is unsupported on this platform.\n",
)

# The message for a delegate that takes nothing: https://github.com/tensorflow/tensorflow/issues/56482 (NNAPI there).
GPU_NOT_TAKEN = CPU_OLD.replace(
    "The input model file size",
    "Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
    "The input model file size",
)

# https://github.com/tensorflow/tensorflow/issues/56301, its last line as in benchmark_tflite_model.cc
GPU_FAILED = """INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
ERROR: Following operations are not supported by GPU delegate:
ERROR: UNPACK: Operation is not supported.
ERROR: Failed to apply GPU delegate.
ERROR: Benchmarking failed.
"""

# Newer builds add percentiles: StatWithPercentiles::OutputToStream, tsl/util/stats_calculator.h of
# https://github.com/openxla/xla; the prefix is that of https://github.com/google-ai-edge/LiteRT/issues/75.
PERCENTILES = """INFO: STARTING!
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 8.45746
INFO: Initialized session in 143.669ms.
INFO: count=50 first=72635 curr=42240 min=42134 max=72635 avg=43536.2 std=4813 p5=42168 median=42430 p95=49447

INFO: count=24 first=42142 curr=42232 min=42142 max=42763 avg=42435.4 std=147 p5=42232 median=42405 p95=42729

INFO: Inference timings in us: Init: 143669, First inference: 72635, Warmup (avg): 43536.2, Inference (avg): 42435.4
INFO: Memory footprint delta from the start of the tool (MB): init=23.5625 overall=27.5859
"""

# https://github.com/NobuoTsukamoto/meta-tensorflow-lite/blob/main/doc/tensorflow-lite-benchmark.md
PROFILE = """Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t            0.000\t    1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0

Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t            0.066\t   87.754\t   60.957\t  2.066%\t  2.066%\t     0.000\t        1\t[MobilenetV1/MobilenetV1/Conv2d_0/Relu6]:0
\t       DEPTHWISE_CONV_2D\t           61.033\t   53.628\t   49.870\t  1.691%\t  3.757%\t     0.000\t        1\t[MobilenetV1/MobilenetV1/Conv2d_1_depthwise/Relu6]:1
\t                 CONV_2D\t          110.912\t  134.346\t  147.808\t  5.011%\t  8.768%\t     0.000\t        1\t[MobilenetV1/MobilenetV1/Conv2d_1_pointwise/Relu6]:2

============================== Top by Computation Time ==============================
\t             [node type]\t          [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t                 CONV_2D\t          110.912\t  134.346\t  147.808\t  5.011%\t 69.836%\t     0.000\t        1\t[MobilenetV1/MobilenetV1/Conv2d_1_pointwise/Relu6]:2

Timings (microseconds): count=50 first=2989660 curr=2912978 min=2727203 max=3189476 avg=2.9499e+06 std=109770
"""

# Without [start], and with words in the operation: a row as XNNPACK's own profile has it.
# https://github.com/google-ai-edge/LiteRT, tflite/profiling; the columns as in the SyNAP manual of Synaptics
PROFILE_XNNPACK = """Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
            [node type]  [first]  [avg ms]      [%]    [cdf%]  [mem KB] [times called] [Name]
    Convolution (NHWC, QC8) IGEMM    0.398    0.407   2.658%   3.986%   0.000   1   Delegate/Convolution (NHWC, QC8) IGEMM:0
RESIZE_NEAREST_NEIGHBOR    0.052     0.058   0.899%   62.936%     0.000         1      []:38

"""

# https://github.com/strazzere/android-unpacker/issues/53
WRONG_PROGRAM = "/system/bin/sh: ./benchmark_model: not executable: 64-bit ELF file\n"

# https://github.com/ubports/ubports-installer/issues/4039: adb says so, and some versions return 0 all the same
PUSH_FULL = (
    "adb: error: failed to copy '{source}' to '{target}': remote No space left on device\n"
    "{source}: 1 file pushed, 0 skipped. 1.9 MB/s (373924624 bytes in 185.159s)\n"
)

# Of adb 29.0.6 itself, from Debian 12, on a machine without a phone
NO_DEVICE = "error: no devices/emulators found\n"
NOT_FOUND = "error: device '{serial}' not found\n"

# http://www.kouhan.cn/en/article/00010739 (OnePlus One)
UNAUTHORIZED = (
    "error: device unauthorized.\nThis adbd's $ADB_VENDOR_KEYS is not set; try 'adb kill-server' if that seems wrong.\n"
    "Otherwise check for a confirmation dialog on your device.\n"
)

# https://github.com/bryanroscoe/shield_optimizer/issues/6 (Nvidia Shield): what is cached is not what is
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=36.0, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=37.0, mType=0, mName=CPU0, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=64.0, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=66.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=-99.9, mType=5, mName=POWER_AMPLIFIER, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=0, mName=Fan}
"""

# https://raw.githubusercontent.com/LowFlowIO/xteink-S4-adb/main/stock/dumpsys-thermalservice.md
THERMAL_WITHOUT_HAL = "IsStatusOverride: false\nThermal Status: 0\nCached temperatures:\nHAL Ready: false\n"

# https://gh0st.tistory.com/6 (a Samsung phone, which adds entries of its own)
BATTERY = """Current Battery Service state:
  mBootCompleted: true
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 0
  Max charging voltage: 0
  Charge counter: 0
  status: 2
  health: 2
  present: true
  level: 84
  scale: 100
  voltage: 4063
  temperature: 326
  technology: Li-ion
  batterySWSelfDischarging: false
USE_FAKE_BATTERY: false
  mWasUsedWirelessFastChargerPreviously: true
LLB CAL:
"""

# The keys are those of https://source.android.com/docs/core/architecture/configuration/add-system-properties; the
# phone is made up.
PROPERTIES = """[ro.board.platform]: [gs201]
[ro.build.version.release]: [14]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.cpu.abilist]: [arm64-v8a,armeabi-v7a,armeabi]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 7]
[ro.serialno]: [SECRET0123]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G2]
"""
