// Training of a multilayer perceptron by stochastic gradient descent, one network on one core.  It has two layers or more.
//
// A step is bound by its three products per layer: forward, the slope at the inputs, the slope of the weights.  Weights
// are what a product reads word by word, in the layout that torch has them in, and examples lie along the vectors, so
// nothing large is ever turned around.  The slope of the weights ends in registers and is folded into velocity, weights
// and their rounded copy on the spot: there is no gradient in memory and no pass of an optimizer over it.
// The first layer is the other way round: there the images are read word by word, and only where they are not 0; its
// outputs lie along the vectors.
// What is rounded to the kind's elements: images, activations, slopes at activations, the copies of the weights.  Sums,
// weights, velocity, biases and the loss are of its numbers.

#include "memory.hpp"
#include "products.hpp"
#include "sparse.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

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
    virtual void answer(const void* images, size_t count, void* logits) = 0;
};

// How a step moves a weight, or a vector of them.
template <class Number>
struct Move {
    Number momentum, decay, rate;
    int nesterov;

    Move(const Rule& rule, double rate)
        : momentum(rule.momentum), decay(rule.decay), rate(rate), nesterov(rule.nesterov) {}

    template <class T>
    void operator()(T& weight, T& velocity, T gradient) const {
        gradient += weight * decay;
        velocity = velocity * momentum + gradient;
        weight -= (nesterov ? gradient + velocity * momentum : velocity) * rate;
    }
};

template <class K>
class Perceptron : public Trainer {
    using Number = typename K::Number;
    using Element = typename K::Element;
    using Word = typename K::Word;
    using Vector = typename K::Vector;
    static constexpr size_t LANES = K::LANES;
    static constexpr size_t AHEAD = 4;  // tiles of the first layer's state that are fetched before their turn

    struct Layer {
        size_t inputs, outputs;
        bool first;
        size_t across;  // elements from one row of the copy to the next; not of the first layer
        size_t back;    // the same of the copy the other way round
        Block<Number> state;  // weights and velocity, tile by tile as the update goes through them
        Block<Number> bias, bias_velocity;
        Block<Element> copy;       // (outputs, inputs) rounded; of the first layer B: k along inputs, outputs along lanes
        Block<Element> turned;     // (inputs, outputs) rounded; not of the first layer
        Block<Word> forward;       // its inputs as B: k along inputs, examples along lanes; not of the first layer
        Block<Word> sideways;      // its inputs as B: k along examples, inputs along lanes; not of the first layer
        Block<Element> slope;      // (outputs, batch) at the outputs before the ReLU
        Block<Word> slope_panels;  // as B: k along outputs, examples along lanes; of the first layer the other way round
    };

    std::vector<Layer> layers_;
    size_t batch_, classes_, pixels_;  // elements of an image, up to whole vectors
    Block<Element> images_;            // (batch, pixels) of the batch
    Block<Element> turned_images_;     // (pixels, batch)
    Lists<K> by_example_, by_pixel_;   // where images are not 0
    Block<Element> outcome_;           // of one layer after the ReLU: (outputs, batch), of the first (batch, outputs)
    Block<Number> logits_;             // (classes, batch)

  public:
    Perceptron(int64_t count, const int64_t* widths, int64_t batch)
        : batch_(spread(batch)),
          classes_(widths[count]),
          pixels_(spread(widths[0])),
          images_(batch_ * pixels_),
          turned_images_(pixels_ * batch_),
          by_example_(batch_, pixels_ / K::PER_WORD),
          by_pixel_(pixels_, batch_ / K::PER_WORD),
          logits_(round_up(widths[count], ROWS) * batch_) {
        size_t widest = 0;
        for (int64_t i = 0; i < count; ++i) {
            widest = std::max<size_t>(widest, widths[i + 1]);
            layers_.push_back(make(widths[i], widths[i + 1], i == 0));
        }
        outcome_ = Block<Element>(spread(widest + ROWS) * batch_);
    }

    void read(const void* from) override {
        const auto* weights = static_cast<const Number*>(from);
        for (auto& layer : layers_) {
            layer.state.clear();
            layer.copy.clear();
            layer.bias_velocity.clear();
            each_weight(layer, [&](Number& weight, size_t output, size_t input) {
                weight = weights[output * layer.inputs + input];
                copied(layer, output, input) = K::rounded(weight);
            });
            weights += layer.inputs * layer.outputs;
            std::memcpy(layer.bias(), weights, layer.outputs * sizeof(Number));
            weights += layer.outputs;
            if (!layer.first) turn_copy(layer);
        }
    }

    void write(void* to) override {
        auto* weights = static_cast<Number*>(to);
        for (auto& layer : layers_) {
            each_weight(layer, [&](Number& weight, size_t output, size_t input) {
                weights[output * layer.inputs + input] = weight;
            });
            weights += layer.inputs * layer.outputs;
            std::memcpy(weights, layer.bias(), layer.outputs * sizeof(Number));
            weights += layer.outputs;
        }
    }

    void answer(const void* images, size_t count, void* logits) override {
        auto* to = static_cast<Number*>(logits);
        for (size_t low = 0; low < count; low += batch_) {
            size_t size = std::min(batch_, count - low);
            gather(images, nullptr, low, size);
            forward(size);
            tell(to + low * classes_, size);
        }
    }

    void train(const Batches& batches, const Rule& rule, Loss loss) override {
        for (int64_t step = 0; step < batches.steps; ++step) {
            int64_t low = batches.edges[step];
            size_t size = batches.edges[step + 1] - low;
            gather(batches.images, batches.rows, low, size);
            turn<K>(images_(), pixels_, vectors(size) * LANES, layers_[0].inputs, turned_images_(), batch_);
            by_pixel_.fill(as_words(turned_images_()), batch_ / K::PER_WORD, layers_[0].inputs, words(vectors(size) * LANES));
            forward(size);
            if (batches.logits) tell(static_cast<Number*>(batches.logits) + low * classes_, size);
            batches.losses[step] =
                loss == CROSS_ENTROPY ? cross_entropy(batches.labels + low, size) : zero_hinge(batches.labels + low, size);
            Move<Number> move(rule, batches.rates[step]);
            for (size_t i = layers_.size(); i-- > 1;) {
                descend(layers_[i], layers_[i - 1], size);  // at the weights before the step
                update(layers_[i], size, move);
            }
            update_first(size, move);
            for (auto& layer : layers_) update_bias(layer, size, move);
        }
    }

  private:
    // Elements in which so many fit, in whole vectors of words and of sums.
    static size_t spread(size_t count) { return round_up(count, LANES * K::PER_WORD); }
    static size_t words(size_t count) { return (count + K::PER_WORD - 1) / K::PER_WORD; }
    static size_t vectors(size_t count) { return (count + LANES - 1) / LANES; }
    static const Word* as_words(const Element* elements) { return reinterpret_cast<const Word*>(elements); }

    // Of B with k along so many inputs.
    static size_t depth_first(size_t inputs) { return round_up(inputs, GROUP) / K::PER_WORD; }

    Layer make(size_t inputs, size_t outputs, bool first) {
        Layer layer;
        layer.inputs = inputs, layer.outputs = outputs, layer.first = first;
        layer.across = spread(inputs), layer.back = spread(outputs);
        layer.bias = Block<Number>(round_up(outputs, LANES));
        layer.bias_velocity = Block<Number>(outputs);
        layer.slope = Block<Element>(round_up(outputs, ROWS) * batch_);
        layer.slope_panels = Block<Word>(spread(outputs) * batch_);
        if (first) {
            layer.state = Block<Number>(2 * round_up(inputs, GROUP) * vectors(outputs) * LANES);
            layer.copy = Block<Element>(round_up(inputs, GROUP) * vectors(outputs) * LANES);
        } else {
            layer.state = Block<Number>(2 * round_up(outputs, ROWS) * vectors(inputs) * LANES);
            layer.copy = Block<Element>(round_up(outputs, ROWS) * layer.across);
            layer.turned = Block<Element>(round_up(inputs, ROWS) * layer.back);
            layer.forward = Block<Word>(spread(inputs) * batch_);
            layer.sideways = Block<Word>(batch_ * spread(inputs));
        }
        return layer;
    }

    // Where in the state a tile begins: its weights, then its velocities.  Rows are outputs, and inputs lie along vectors;
    // of the first layer it is the other way round.
    static size_t tile_start(const Layer& layer, size_t row, size_t vector, size_t wide) {
        size_t rows = layer.first ? round_up(layer.inputs, GROUP) : round_up(layer.outputs, ROWS);
        return 2 * LANES * (vector * rows + row * wide);
    }

    template <class Visit>
    static void each_weight(const Layer& layer, Visit&& visit) {
        size_t tall = layer.first ? GROUP : ROWS, width = layer.first ? layer.outputs : layer.inputs;
        for (size_t output = 0; output < layer.outputs; ++output) {
            for (size_t input = 0; input < layer.inputs; ++input) {
                size_t row = layer.first ? input : output, lane = layer.first ? output : input;
                size_t start = lane / LANES / PANEL * PANEL, left = vectors(width) - start;
                size_t wide = left < PANEL ? left : PANEL, inside = (row % tall * wide - start) * LANES + lane;
                visit(layer.state(tile_start(layer, row / tall * tall, start, wide) + inside)[0], output, input);
            }
        }
    }

    static Element& copied(const Layer& layer, size_t output, size_t input) {
        if (!layer.first) return layer.copy(output * layer.across)[input];
        size_t word = place<K>(input / K::PER_WORD, output / LANES, vectors(layer.outputs), depth_first(layer.inputs));
        return layer.copy((word + output % LANES) * K::PER_WORD)[input % K::PER_WORD];
    }

    static void fetch(const Element* from, size_t count) {
        const char* bytes = reinterpret_cast<const char*>(from);
        for (size_t i = 0; i < count * sizeof(Element); i += LINE) __builtin_prefetch(bytes + i);
    }

    // From `low` on, so many of the images, or of those that the rows name.
    void gather(const void* all, const int64_t* rows, int64_t low, size_t size) {
        auto& layer = layers_[0];
        const auto* images = static_cast<const Element*>(all);
        size_t padded = vectors(size) * LANES;
        for (size_t i = 0; i < padded; ++i) {
            Element* row = images_(i * pixels_);
            if (i + 2 < size && rows) fetch(images + rows[low + i + 2] * layer.inputs, layer.inputs);
            if (i < size) {
                int64_t from = rows ? rows[low + i] : low + int64_t(i);
                std::memcpy(row, images + from * layer.inputs, layer.inputs * sizeof(Element));
            } else {
                std::memset(row, 0, layer.inputs * sizeof(Element));
            }
        }
        by_example_.fill(as_words(images_()), pixels_ / K::PER_WORD, padded, words(layer.inputs));
    }

    void forward(size_t size) {
        size_t count = vectors(size), padded = count * LANES;
        forward_first(padded);
        for (size_t i = 1; i < layers_.size(); ++i) {
            auto& layer = layers_[i];
            bool last = i + 1 == layers_.size();
            auto finish = [&](size_t row, size_t vector, size_t i, size_t v, size_t, Vector sum) {
                size_t place = (row + i) * padded + (vector + v) * LANES;
                Vector value = sum + layer.bias(row + i)[0];
                if (last) store(logits_(place), value);
                else K::keep(outcome_(place), value < 0 ? Vector{} : value);
            };
            product<K>(as_words(layer.copy()), layer.across / K::PER_WORD, layer.outputs, layer.forward(), count,
                       words(layer.inputs), every, nothing, finish);
            if (last) break;
            auto& above = layers_[i + 1];
            pack_rows<K>(outcome_(), padded, layer.outputs, count, above.forward());
            pack_columns<K>(as_words(outcome_()), padded / K::PER_WORD, layer.outputs, words(padded), above.sideways());
        }
    }

    void forward_first(size_t padded) {
        auto &layer = layers_[0], &above = layers_[1];
        size_t count = vectors(layer.outputs);
        auto finish = [&]<size_t WIDE>(size_t row, size_t vector, const Vector (&sums)[GROUP][WIDE]) {
            for (size_t v = 0; v < WIDE; ++v) {
                size_t lane = (vector + v) * LANES;
                Vector bias = load<Vector>(layer.bias(lane));
                for (size_t i = 0; i < GROUP; ++i) {
                    Vector value = sums[i][v] + bias;
                    K::keep(outcome_((row + i) * layer.back + lane), value < 0 ? Vector{} : value);  // NaN stays NaN
                }
            }
        };
        product<K>(by_example_, padded, as_words(layer.copy()), count, depth_first(layer.inputs), finish);
        pack_columns<K>(as_words(outcome_()), layer.back / K::PER_WORD, padded, words(layer.outputs), above.forward());
        pack_rows<K>(outcome_(), layer.back, padded, count, above.sideways());
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
            size_t unit = row + i, word = place<K>(unit / K::PER_WORD, vector + v, count, words(layer.inputs));
            Vector outcome = K::part(load<typename K::Words>(layer.forward(word)), unit);
            K::keep(below.slope(unit * padded + (vector + v) * LANES), outcome <= 0 ? Vector{} : sum);
        };
        product<K>(as_words(layer.turned()), layer.back / K::PER_WORD, layer.inputs, layer.slope_panels(), count,
                   words(layer.outputs), every, nothing, finish);
    }

    void update(Layer& layer, size_t size, const Move<Number>& move) {
        size_t padded = vectors(size) * LANES;
        auto finish = [&](size_t row, size_t vector, size_t i, size_t v, size_t wide, Vector sum) {
            Number* at = layer.state(tile_start(layer, row, vector, wide) + (i * wide + v) * LANES);
            Number* moving = at + ROWS * wide * LANES;
            Vector weight = load<Vector>(at), velocity = load<Vector>(moving);
            move(weight, velocity, sum);
            store(at, weight);
            store(moving, velocity);
            K::keep(layer.copy((row + i) * layer.across + (vector + v) * LANES), weight);
        };
        auto expect = [&](size_t row, size_t vector, size_t wide) {
            return reinterpret_cast<const char*>(layer.state(tile_start(layer, row, vector, wide)));
        };
        product<K>(as_words(layer.slope()), padded / K::PER_WORD, layer.outputs, layer.sideways(),
                   vectors(layer.inputs), words(padded), every, expect, finish);
        turn_copy(layer);
    }

    void update_first(size_t size, const Move<Number>& move) {
        auto& layer = layers_[0];
        size_t padded = vectors(size) * LANES;
        pack_columns<K>(as_words(layer.slope()), padded / K::PER_WORD, layer.outputs, words(padded),
                        layer.slope_panels());
        // The product comes by tiles in the order in which they lie in the state and in the copy.
        auto finish = [at = layer.state(), to = reinterpret_cast<Word*>(layer.copy()),
                       move]<size_t WIDE>(size_t, size_t, const Vector (&sums)[GROUP][WIDE]) mutable {
            constexpr size_t TILE = GROUP * WIDE * LANES;  // numbers
            for (size_t i = 0; i < 2 * TILE * sizeof(Number); i += LINE)  // it need not wait for what comes soon
                __builtin_prefetch(reinterpret_cast<const char*>(at + AHEAD * 2 * TILE) + i, 1);
#pragma GCC unroll 4
            for (size_t v = 0; v < WIDE; ++v) {
                Vector weights[GROUP];
#pragma GCC unroll 4
                for (size_t i = 0; i < GROUP; ++i) {
                    Number *weight = at + (i * WIDE + v) * LANES, *moving = weight + TILE;
                    Vector velocity = load<Vector>(moving);
                    weights[i] = load<Vector>(weight);
                    move(weights[i], velocity, sums[i][v]);
                    store(weight, weights[i]);
                    store(moving, velocity);
                }
#pragma GCC unroll 4
                for (size_t i = 0; i < GROUP; i += K::PER_WORD)
                    store(to + (i / K::PER_WORD * WIDE + v) * LANES, K::joined(weights + i));
            }
            at += 2 * TILE;
            to += TILE / K::PER_WORD;
        };
        product<K>(by_pixel_, layer.inputs, layer.slope_panels(), vectors(layer.outputs), words(padded), finish);
    }

    void update_bias(Layer& layer, size_t size, const Move<Number>& move) {
        size_t padded = vectors(size) * LANES;
        for (size_t row = 0; row < layer.outputs; ++row) {
            Vector sums{};
            for (size_t i = 0; i < padded; i += LANES) sums += K::widened(layer.slope(row * padded + i));
            Number gradient = 0;
            for (size_t i = 0; i < LANES; ++i) gradient += sums[i];
            move(layer.bias(row)[0], layer.bias_velocity(row)[0], gradient);
        }
    }

    void turn_copy(Layer& layer) {
        turn<K>(layer.copy(), layer.across, layer.outputs, layer.inputs, layer.turned(), layer.back);
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

// Of each image, (count, inputs) elements, the numbers (count, classes) that it ends in.
void study_mlp_answer(void* trainer, const void* images, int64_t count, void* logits) {
    static_cast<Trainer*>(trainer)->answer(images, count, logits);
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
