// What a library says of its arrays to the driver that fills them.
#pragma once

enum class Element : int { ABSENT, FLOAT32, FLOAT64, FLOAT16, BFLOAT16, REMAINDER, CODES };
