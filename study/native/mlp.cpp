// Training of a multilayer perceptron by stochastic gradient descent, one network on one core.
//
// A step is bound by its three products per layer: forward, the slope at the inputs, the slope of the weights.  Weights
// are what a product reads word by word, in the layout that torch has them in, and examples lie along the vectors, so
// nothing large is ever turned around.  The slope of the weights ends in registers and is folded into velocity, weights
// and their rounded copy on the spot: there is no gradient in memory and no pass of an optimizer over it.
// Pixels that are 0 in all examples of a panel are left out of the first layer's products, which changes no bit.
// What is rounded to the kind's elements: images, activations, slopes at activations, the copies of the weights.  Sums,
// weights, velocity, biases and the loss are of its numbers.

#include "products.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace {

enum Loss { CROSS_ENTROPY, ZERO_HINGE };

struct Rule {
    double momentum, decay;
    int nesterov;
};

struct Batches {
    const void* images;     // rows of elements
    const int64_t* rows;    // of each example that is trained on, its row of the images; none: 0, 1, 2, ...
    const int64_t* labels;  // of each example that is trained on
    const int64_t* edges;   // (steps + 1) of the batches
    const double* rates;    // (steps)
    int64_t steps;
    void* logits;    // (examples, classes) numbers, before the step on each; none: not told
    double* losses;  // (steps) mean loss of the batch before the step on it
};

struct Trainer {
    virtual ~Trainer() = default;
    virtual void read(const void* weights) = 0;
    virtual void write(void* weights) = 0;
    virtual void train(const Batches& batches, const Rule& rule, Loss loss) = 0;
};

constexpr size_t HUGE = 2 << 20;  // bytes of a page that spares the tables of small ones

size_t round_up(size_t count, size_t to) { return (count + to - 1) / to * to; }

template <class T>
class Block {
  public:
    Block() : Block(0) {}
    explicit Block(size_t count)
        : data_(nullptr, std::free) {
        size_t bytes = count * sizeof(T) + LINE, page = bytes < HUGE / 2 ? LINE : HUGE;
        data_.reset(static_cast<T*>(std::aligned_alloc(page, round_up(bytes, page))));
        if (!data_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        if (page == HUGE) madvise(data_.get(), round_up(bytes, page), MADV_HUGEPAGE);
#endif
        std::memset(data_.get(), 0, bytes);
    }
    T* operator()(size_t offset = 0) const { return data_.get() + offset; }

  private:
    std::unique_ptr<T, decltype(&std::free)> data_;
};

template <class K>
class Perceptron : public Trainer {
    using Number = typename K::Number;
    using Element = typename K::Element;
    using Word = typename K::Word;
    using Vector = typename K::Vector;
    static constexpr size_t LANES = K::LANES;

    struct Layer {
        size_t inputs, outputs;
        size_t across;  // elements from one row of the copy to the next
        size_t back;    // the same of the copy the other way round
        Block<Number> state;      // weights and velocity, tile by tile as `update` goes through them
        Block<Number> bias, bias_velocity;
        Block<Element> copy;      // (outputs, inputs) rounded
        Block<Element> turned;    // (inputs, outputs) rounded; not of the first layer
        Block<Word> forward;      // its inputs as B: k along inputs, examples along lanes
        Block<Word> sideways;     // its inputs as B: k along examples, inputs along lanes
        Block<Element> outcome;   // (outputs, batch) after the ReLU; not of the last layer
        Block<Element> slope;     // (outputs, batch) at the outputs before the ReLU
        Block<Word> slope_panels;  // as B: k along outputs, examples along lanes; not of the first layer
    };

    std::vector<Layer> layers_;
    size_t batch_, classes_;
    Block<Element> images_;  // (batch, inputs) of the batch
    Block<uint32_t> every_;  // 0, 1, 2, ...
    Block<uint32_t> which_forward_, which_sideways_;  // k at which the images are not 0, panel by panel
    std::vector<Held> whole_, held_forward_, held_sideways_;
    Block<Number> logits_;   // (classes, batch)

  public:
    Perceptron(int64_t count, const int64_t* widths, int64_t batch)
        : batch_(round_up(batch, LANES)),
          classes_(widths[count]),
          images_(batch_ * spread(widths[0])),
          logits_(round_up(widths[count], ROWS) * batch_) {
        size_t widest = batch_;
        for (int64_t i = 0; i <= count; ++i) widest = std::max(widest, spread(widths[i]));
        size_t panels = widest / LANES / PANEL + 1;
        every_ = Block<uint32_t>(widest);
        for (size_t k = 0; k < widest; ++k) every_(k)[0] = k;
        which_forward_ = Block<uint32_t>(panels * spread(widths[0]));
        which_sideways_ = Block<uint32_t>(panels * batch_);
        whole_ = held_forward_ = held_sideways_ = std::vector<Held>(panels);
        for (int64_t i = 0; i < count; ++i) {
            size_t inputs = widths[i], outputs = widths[i + 1];
            Layer layer;
            layer.inputs = inputs, layer.outputs = outputs;
            layer.across = spread(inputs), layer.back = spread(outputs);
            layer.state = Block<Number>(2 * round_up(outputs, ROWS) * vectors(inputs) * LANES);
            layer.bias = Block<Number>(outputs);
            layer.bias_velocity = Block<Number>(outputs);
            layer.copy = Block<Element>(round_up(outputs, ROWS) * layer.across);
            layer.forward = Block<Word>(spread(inputs) * batch_);
            layer.sideways = Block<Word>(batch_ * spread(inputs));
            layer.slope = Block<Element>(round_up(outputs, ROWS) * batch_);
            if (i) {
                layer.turned = Block<Element>(round_up(inputs, ROWS) * layer.back);
                layer.slope_panels = Block<Word>(spread(outputs) * batch_);
            }
            if (i + 1 < count) layer.outcome = Block<Element>(round_up(outputs, ROWS) * batch_);
            layers_.push_back(std::move(layer));
        }
    }

    void read(const void* from) override {
        const auto* weights = static_cast<const Number*>(from);
        for (auto& layer : layers_) {
            each_weight(layer, [&](Number& weight, Number& velocity, size_t row, size_t input) {
                weight = weights[row * layer.inputs + input];
                velocity = 0;
                layer.copy(row * layer.across)[input] = K::rounded(weight);
            });
            weights += layer.inputs * layer.outputs;
            std::memcpy(layer.bias(), weights, layer.outputs * sizeof(Number));
            std::memset(layer.bias_velocity(), 0, layer.outputs * sizeof(Number));
            weights += layer.outputs;
            if (&layer != &layers_[0]) turn(layer);
        }
    }

    void write(void* to) override {
        auto* weights = static_cast<Number*>(to);
        for (auto& layer : layers_) {
            each_weight(layer, [&](Number& weight, Number&, size_t row, size_t input) {
                weights[row * layer.inputs + input] = weight;
            });
            weights += layer.inputs * layer.outputs;
            std::memcpy(weights, layer.bias(), layer.outputs * sizeof(Number));
            weights += layer.outputs;
        }
    }

    void train(const Batches& batches, const Rule& rule, Loss loss) override {
        for (int64_t step = 0; step < batches.steps; ++step) {
            int64_t low = batches.edges[step];
            size_t size = batches.edges[step + 1] - low;
            gather(batches, low, size);
            forward(size);
            if (batches.logits) tell(static_cast<Number*>(batches.logits) + low * classes_, size);
            batches.losses[step] =
                loss == CROSS_ENTROPY ? cross_entropy(batches.labels + low, size) : zero_hinge(batches.labels + low, size);
            for (size_t i = layers_.size(); i-- > 0;) {
                if (i) descend(layers_[i], layers_[i - 1], size);  // at the weights before the step
                update(layers_[i], size, rule, batches.rates[step]);
            }
        }
    }

  private:
    // Elements in which so many fit, in whole vectors of words and of sums.
    static size_t spread(size_t count) { return round_up(count, LANES * K::PER_WORD); }
    static size_t words(size_t count) { return (count + K::PER_WORD - 1) / K::PER_WORD; }
    static size_t vectors(size_t count) { return (count + LANES - 1) / LANES; }
    static const Word* as_words(const Element* elements) { return reinterpret_cast<const Word*>(elements); }

    // Where in the state of a layer a tile begins: its weights, then its velocities.
    static size_t tile_start(const Layer& layer, size_t row, size_t vector, size_t wide) {
        return 2 * LANES * (vector * round_up(layer.outputs, ROWS) + row * wide);
    }

    template <class Visit>
    static void each_weight(const Layer& layer, Visit&& visit) {
        for (size_t row = 0; row < layer.outputs; ++row) {
            for (size_t input = 0; input < layer.inputs; ++input) {
                size_t first = input / LANES / PANEL * PANEL, left = vectors(layer.inputs) - first;
                size_t wide = left < PANEL ? left : PANEL, inside = (row % ROWS * wide - first) * LANES + input;
                Number* at = layer.state(tile_start(layer, row / ROWS * ROWS, first, wide) + inside);
                visit(at[0], at[ROWS * wide * LANES], row, input);
            }
        }
    }

    static void fetch(const Element* from, size_t count) {
        const char* bytes = reinterpret_cast<const char*>(from);
        for (size_t i = 0; i < count * sizeof(Element); i += LINE) __builtin_prefetch(bytes + i);
    }

    void gather(const Batches& batches, int64_t low, size_t size) {
        auto& layer = layers_[0];
        const auto* images = static_cast<const Element*>(batches.images);
        size_t padded = vectors(size) * LANES;
        for (size_t i = 0; i < padded; ++i) {
            Element* row = images_(i * layer.across);
            if (i + 2 < size && batches.rows) fetch(images + batches.rows[low + i + 2] * layer.inputs, layer.inputs);
            if (i < size) {
                int64_t from = batches.rows ? batches.rows[low + i] : low + int64_t(i);
                std::memcpy(row, images + from * layer.inputs, layer.inputs * sizeof(Element));
            } else {
                std::memset(row, 0, layer.inputs * sizeof(Element));
            }
        }
        pack_columns<K>(as_words(images_()), layer.across / K::PER_WORD, padded, words(layer.inputs), layer.forward());
        pack_rows<K>(images_(), layer.across, padded, vectors(layer.inputs), layer.sideways());
        press<K>(layer.forward(), vectors(size), words(layer.inputs), which_forward_(), held_forward_.data());
        press<K>(layer.sideways(), vectors(layer.inputs), words(padded), which_sideways_(), held_sideways_.data());
    }

    // What the panels of a B hold that is whole.
    const Held* whole(size_t depth) {
        for (auto& held : whole_) held = {every_(), depth};
        return whole_.data();
    }

    void forward(size_t size) {
        size_t count = vectors(size), padded = count * LANES;
        for (auto& layer : layers_) {
            bool last = &layer == &layers_.back();
            auto finish = [&](size_t row, size_t vector, size_t i, size_t v, size_t, Vector sum) {
                size_t place = (row + i) * padded + (vector + v) * LANES;
                Vector value = sum + layer.bias(row + i)[0];
                if (last) store(logits_(place), value);
                else K::keep(layer.outcome(place), value < 0 ? Vector{} : value);  // NaN stays NaN
            };
            product<K>(as_words(layer.copy()), layer.across / K::PER_WORD, layer.outputs, layer.forward(), count,
                       words(layer.inputs), &layer == &layers_[0] ? held_forward_.data() : whole(words(layer.inputs)),
                       nothing, finish);
            if (last) break;
            auto& above = *(&layer + 1);
            pack_rows<K>(layer.outcome(), padded, layer.outputs, count, above.forward());
            pack_columns<K>(as_words(layer.outcome()), padded / K::PER_WORD, layer.outputs, words(padded),
                            above.sideways());
        }
    }

    void tell(Number* to, size_t size) const {
        size_t padded = vectors(size) * LANES;
        for (size_t i = 0; i < size; ++i)
            for (size_t c = 0; c < classes_; ++c) to[i * classes_ + c] = logits_(c * padded)[i];
    }

    // Mean of -log p of the label; leaves the slope at the logits.
    double cross_entropy(const int64_t* labels, size_t size) {
        size_t padded = vectors(size) * LANES;
        double total = 0;
        for (size_t i = 0; i < size; ++i) {
            Number* z = logits_(i);
            Number top = z[0], sum = 0, own = z[labels[i] * padded];
            for (size_t c = 1; c < classes_; ++c) top = z[c * padded] > top ? z[c * padded] : top;
            for (size_t c = 0; c < classes_; ++c) sum += z[c * padded] = std::exp(z[c * padded] - top);
            total += std::log(sum) - (own - top);
            for (size_t c = 0; c < classes_; ++c) z[c * padded] /= sum;
            z[labels[i] * padded] -= 1;
        }
        slope(size);
        return total / size;
    }

    // Mean of the sum over the other classes of max(0, z_j - z_label); leaves the slope at the logits.
    double zero_hinge(const int64_t* labels, size_t size) {
        size_t padded = vectors(size) * LANES;
        double total = 0;
        for (size_t i = 0; i < size; ++i) {
            Number* z = logits_(i);
            Number own = z[labels[i] * padded], sum = 0, above = 0;
            for (size_t c = 0; c < classes_; ++c) {
                Number excess = z[c * padded] - own;
                sum += excess <= 0 ? 0 : excess;
                above += z[c * padded] = excess > 0;
            }
            z[labels[i] * padded] = -above;
            total += sum;
        }
        slope(size);
        return total / size;
    }

    // From what lies in place of the logits, divided by the size of the batch; 0 beyond it.
    void slope(size_t size) {
        size_t padded = vectors(size) * LANES;
        Element* to = layers_.back().slope();
        Number share = Number(1) / size;
        for (size_t c = 0; c < classes_; ++c)
            for (size_t i = 0; i < padded; ++i)
                to[c * padded + i] = i < size ? K::rounded(logits_(c * padded)[i] * share) : Element{};
    }

    // The slope at the outputs of the layer below, through its ReLU.
    void descend(Layer& layer, Layer& below, size_t size) {
        size_t count = vectors(size), padded = count * LANES;
        pack_rows<K>(layer.slope(), padded, layer.outputs, count, layer.slope_panels());
        auto finish = [&](size_t row, size_t vector, size_t i, size_t v, size_t, Vector sum) {
            size_t place = (row + i) * padded + (vector + v) * LANES;
            K::keep(below.slope(place), K::widened(below.outcome(place)) <= 0 ? Vector{} : sum);
        };
        product<K>(as_words(layer.turned()), layer.back / K::PER_WORD, layer.inputs, layer.slope_panels(), count,
                   words(layer.outputs), whole(words(layer.outputs)), nothing, finish);
    }

    void update(Layer& layer, size_t size, const Rule& rule, double rate) {
        size_t count = vectors(size), padded = count * LANES;
        Number momentum = rule.momentum, decay = rule.decay, lr = rate;
        auto moved = [&](auto& weight, auto& velocity, auto gradient) {
            gradient += weight * decay;
            velocity = velocity * momentum + gradient;
            weight -= (rule.nesterov ? gradient + velocity * momentum : velocity) * lr;
        };
        auto finish = [&](size_t row, size_t vector, size_t i, size_t v, size_t wide, Vector sum) {
            Number* at = layer.state(tile_start(layer, row, vector, wide) + (i * wide + v) * LANES);
            Number* moving = at + ROWS * wide * LANES;
            Vector weight = load<Vector>(at), velocity = load<Vector>(moving);
            moved(weight, velocity, sum);
            store(at, weight);
            store(moving, velocity);
            K::keep(layer.copy((row + i) * layer.across + (vector + v) * LANES), weight);
        };
        auto expect = [&](size_t row, size_t vector, size_t wide) {
            return reinterpret_cast<const char*>(layer.state(tile_start(layer, row, vector, wide)));
        };
        product<K>(as_words(layer.slope()), padded / K::PER_WORD, layer.outputs, layer.sideways(),
                   vectors(layer.inputs), words(padded),
                   &layer == &layers_[0] ? held_sideways_.data() : whole(words(padded)), expect, finish);
        for (size_t row = 0; row < layer.outputs; ++row) {
            Vector sums{};
            for (size_t i = 0; i < padded; i += LANES) sums += K::widened(layer.slope(row * padded + i));
            Number gradient = 0;
            for (size_t i = 0; i < LANES; ++i) gradient += sums[i];
            moved(layer.bias(row)[0], layer.bias_velocity(row)[0], gradient);
        }
        if (&layer != &layers_[0]) turn(layer);
    }

    // The copy of the weights the other way round, pairs along the outputs.
    void turn(Layer& layer) {
        for (size_t i = 0; i < layer.inputs; i += LANES) {
            for (size_t o = 0; o < layer.outputs; o += LANES * K::PER_WORD) {
                typename K::Words square[LANES];
                for (size_t k = 0; k < LANES; ++k) {
                    size_t row = o + k * K::PER_WORD;
                    const auto* first = layer.copy(row * layer.across + i);
                    if (row >= layer.outputs) square[k] = typename K::Words{};
                    else square[k] = K::pair(first, row + 1 < layer.outputs ? first + layer.across : nullptr);
                }
                transpose<LANES>(square);
                for (size_t k = 0; k < LANES && i + k < layer.inputs; ++k)
                    store(reinterpret_cast<Word*>(layer.turned((i + k) * layer.back + o)), square[k]);
            }
        }
    }
};

}  // namespace

extern "C" {

// kind: 0 bfloat16, 1 float32, 2 float64; none when this machine has no such kind, or too little memory.
void* study_mlp_new(int kind, int64_t layers, const int64_t* widths, int64_t batch) {
    try {
#ifdef __AVX512BF16__
        if (kind == 0) return new Perceptron<Bfloat16>(layers, widths, batch);
#endif
        if (kind == 1) return new Perceptron<Plain<float>>(layers, widths, batch);
        if (kind == 2) return new Perceptron<Plain<double>>(layers, widths, batch);
    } catch (const std::bad_alloc&) {
    }
    return nullptr;
}

void study_mlp_free(void* trainer) { delete static_cast<Trainer*>(trainer); }

// All weights and biases, layer by layer, in the order and precision of torch; the velocity is then 0.
void study_mlp_read(void* trainer, const void* weights) { static_cast<Trainer*>(trainer)->read(weights); }

void study_mlp_write(void* trainer, void* weights) { static_cast<Trainer*>(trainer)->write(weights); }

void study_mlp_train(void* trainer, const void* images, const int64_t* rows, const int64_t* labels, const int64_t* edges,
                     const double* rates, int64_t steps, double momentum, double decay, int nesterov, int loss,
                     void* logits, double* losses) {
    Batches batches{images, rows, labels, edges, rates, steps, logits, losses};
    static_cast<Trainer*>(trainer)->train(batches, {momentum, decay, nesterov}, static_cast<Loss>(loss));
}

// Whether there is a kind 0.
int study_has_bfloat16() {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}
}
