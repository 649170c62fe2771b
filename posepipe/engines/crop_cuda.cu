// Crops of YUV 4:2:0 pictures, by the rule of crop_kernel.py: means of k x k pixels (rounded, as bytes), bilinear between them, BT.601,
// chroma at half size. One thread makes 2 x 2 pixels of one crop, which share their chroma.
//
// The same source is compiled for the GPU (NVRTC) and, in the tests, as C++ for the processor: the arithmetic is proven without a GPU.

#ifdef __CUDACC__
#define INLINE __device__ __forceinline__
#else
#define INLINE static inline
#endif

typedef unsigned char u8;

// Laid out as `crop_cuda.CROP`.
struct Crop {
  const u8 *y, *u, *v;
  int height, width, stride;                                       // luma
  int chroma_height, chroma_width, chroma_stride, chroma_step;     // chroma_step: 2 where U and V are interleaved
  int k;                                                           // side of a group of pixels
  float luma[6], chroma[6];                                        // group (x, y) from pixel (column, row) of the crop, row-major 2 x 3
  float black, grey, gain, red_v, green_u, green_v, blue_u;
};

// Laid out as `crop_cuda.LAYOUT`. Strides count elements. kind 0: uint8, 1: int32, 2: float32, 3: float16.
struct Layout {
  int height, width, kind;
  int per_crop, per_row, per_column, red, green, blue;             // the last three: where in a pixel each colour goes
  float mean[3], share[3];                                         // of red, green, blue: (level - mean) * share
};

INLINE float mean_of_group(const u8 *plane, int stride, int step, int k, int column, int row) {
  const u8 *at = plane + (long long)row * k * stride + (long long)column * k * step;
  int sum = 0;
  for (int j = 0; j < k; j++, at += stride)
    for (int i = 0; i < k; i++) sum += at[i * step];
  return (float)(int)((float)sum * (1.0f / (float)(k * k)) + 0.5f);
}

INLINE float group_or(float outside, const u8 *plane, int stride, int step, int k, int columns, int rows, int column, int row) {
  if (column < 0 || row < 0 || column >= columns || row >= rows) return outside;
  return mean_of_group(plane, stride, step, k, column, row);
}

INLINE float held(float value, float low, float high) { return value < low ? low : (value > high ? high : value); }

INLINE float sample(const u8 *plane, int height, int width, int stride, int step, int k, float outside, const float *map, int c, int r) {
  const int columns = width / k, rows = height / k;
  // One group beyond the plane everything is `outside`, so that a position further out may be moved there.
  const float x = held(map[0] * (float)c + (map[1] * (float)r + map[2]), -1.0f, (float)columns) + 1.0f;
  const float y = held(map[3] * (float)c + (map[4] * (float)r + map[5]), -1.0f, (float)rows) + 1.0f;
  const int i = (int)x - 1, j = (int)y - 1;
  const float share_x = x - (float)(i + 1), share_y = y - (float)(j + 1);
  const float a = group_or(outside, plane, stride, step, k, columns, rows, i, j);
  const float b = group_or(outside, plane, stride, step, k, columns, rows, i + 1, j);
  const float d = group_or(outside, plane, stride, step, k, columns, rows, i, j + 1);
  const float e = group_or(outside, plane, stride, step, k, columns, rows, i + 1, j + 1);
  const float upper = a + (b - a) * share_x, lower = d + (e - d) * share_x;
  return upper + (lower - upper) * share_y;
}

// IEEE 754 binary16, to nearest, ties to even; written out so that it needs no header and is tested on the processor.
INLINE unsigned short half_of(float value) {
  union { float f; unsigned int u; } bits;
  bits.f = value;
  const unsigned int sign = (bits.u >> 16) & 0x8000u, size = bits.u & 0x7FFFFFFFu;
  if (size > 0x7F800000u) return (unsigned short)(sign | 0x7E00u);
  if (size >= 0x477FF000u) return (unsigned short)(sign | 0x7C00u);
  unsigned int cut, kept, shift;
  if (size >= 0x38800000u) {
    kept = (size - 0x38000000u) >> 13, cut = size & 0x1FFFu, shift = 13;
  } else {
    const unsigned int exponent = size >> 23;
    if (exponent < 102u) return (unsigned short)sign;
    const unsigned int digits = (size & 0x7FFFFFu) | 0x800000u;
    shift = 126u - exponent, kept = digits >> shift, cut = digits & ((1u << shift) - 1u);
  }
  const unsigned int middle = 1u << (shift - 1u);
  if (cut > middle || (cut == middle && (kept & 1u))) kept++;
  return (unsigned short)(sign | kept);
}

INLINE void put(void *out, const Layout *to, long long at, float level, int colour) {
  const float whole = (float)(int)held(level + 0.5f, 0.0f, 255.0f);
  if (to->kind == 0) {
    ((u8 *)out)[at] = (u8)(int)whole;
  } else if (to->kind == 1) {
    ((int *)out)[at] = (int)whole;
  } else {
    const float number = (whole - to->mean[colour]) * to->share[colour];
    if (to->kind == 2) ((float *)out)[at] = number;
    else ((unsigned short *)out)[at] = half_of(number);
  }
}

// The pixels (2 column, 2 row) to (2 column + 1, 2 row + 1) of crop n.
INLINE void cut(const Crop *crops, const Layout *to, void *out, int column, int row, int n) {
  if (2 * column >= to->width || 2 * row >= to->height) return;
  const Crop *c = crops + n;
  const int ch = c->chroma_height, cw = c->chroma_width;
  const float u = sample(c->u, ch, cw, c->chroma_stride, c->chroma_step, c->k, c->grey, c->chroma, column, row) - c->grey;
  const float v = sample(c->v, ch, cw, c->chroma_stride, c->chroma_step, c->k, c->grey, c->chroma, column, row) - c->grey;
  const float red = c->red_v * v, green = c->green_u * u + c->green_v * v, blue = c->blue_u * u;
  for (int j = 0; j < 2; j++)
    for (int i = 0; i < 2; i++) {
      const int x = 2 * column + i, y = 2 * row + j;
      const float luma = (sample(c->y, c->height, c->width, c->stride, 1, c->k, c->black, c->luma, x, y) - c->black) * c->gain;
      const long long at = (long long)n * to->per_crop + (long long)y * to->per_row + (long long)x * to->per_column;
      put(out, to, at + to->red, luma + red, 0);
      put(out, to, at + to->green, luma + green, 1);
      put(out, to, at + to->blue, luma + blue, 2);
    }
}

#ifdef __CUDACC__
extern "C" __global__ void crops_of_yuv(const Crop *crops, const Layout *to, void *out) {
  cut(crops, to, out, blockIdx.x * blockDim.x + threadIdx.x, blockIdx.y * blockDim.y + threadIdx.y, blockIdx.z);
}
#else
extern "C" void crops_of_yuv(const Crop *crops, const Layout *to, void *out, int count) {
  for (int n = 0; n < count; n++)
    for (int row = 0; 2 * row < to->height; row++)
      for (int column = 0; 2 * column < to->width; column++) cut(crops, to, out, column, row, n);
}
#endif
