#include "perft/core/tensor.hpp"

#include <algorithm>         // std::count
#include <catch2/catch.hpp>  // test cases
#include <cstdint>           // addresses
#include <memory>            // owners
#include <vector>            // values

using perft::bf16;
using perft::Shape;
using perft::ShapeError;
using perft::Tensor;
using perft::ThreadPool;
using perft::UnsupportedError;
using Floats = std::vector<float>;

namespace {

Floats list(const Tensor<float>& t) {
  return {t.span().begin(), t.span().end()};
}

Tensor<float> counted(const Shape& shape) {
  auto t = Tensor<float>::empty(shape);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    t.mutable_data()[i] = static_cast<float>(i);
  }
  return t;
}

}  // namespace

TEST_CASE("tensor: an undefined one holds nothing") {
  const Tensor<float> t;
  CHECK_FALSE(t.defined());
  CHECK(t.numel() == 0);
  CHECK(t.bytes() == 0);
  CHECK(t.span().empty());
  CHECK(t.data() == nullptr);
  CHECK_FALSE(t.unique());
  CHECK_NOTHROW(Tensor<float>().mutable_data());
}

TEST_CASE("tensor: zeros, full, from and empty") {
  CHECK(list(Tensor<float>::zeros({2, 2})) == Floats(4, 0.0F));
  CHECK(list(Tensor<float>::full({3}, 2.5F)) == Floats(3, 2.5F));
  const Floats v{1, 2, 3, 4, 5, 6};
  const auto t = Tensor<float>::from(v, {2, 3});
  CHECK(list(t) == v);
  CHECK(t.rank() == 2);
  CHECK(t.size(1) == 3);
  CHECK(t.stride(0) == 3);
  CHECK(t.bytes() == 24);
  CHECK(t.writable());
  CHECK(t.unique());
  CHECK(reinterpret_cast<std::uintptr_t>(t.data()) % 64 == 0);
  const auto scalar = Tensor<double>::full({}, 7.0);
  CHECK(scalar.numel() == 1);
  CHECK(scalar.span()[0] == 7.0);
  const auto none = Tensor<bf16>::empty({0, 5});
  CHECK(none.defined());
  CHECK(none.bytes() == 0);
}

TEST_CASE("tensor: copies share, clones do not") {
  auto a = counted({2, 3});
  auto b = a;
  CHECK_FALSE(a.unique());
  b.mutable_data()[0] = 9;
  CHECK(a.data()[0] == 9);
  auto c = a.clone();
  CHECK(c.unique());
  c.mutable_data()[0] = 1;
  CHECK(a.data()[0] == 9);
  b = {};
  CHECK(a.unique());
}

TEST_CASE("tensor: slices and transposes are views, and a clone of one is contiguous") {
  auto t = counted({2, 3, 4});
  const auto part = t.slice(1, 1, 3);
  CHECK(part.shape() == Shape{2, 2, 4});
  CHECK_FALSE(part.contiguous());
  CHECK(list(part.clone()) == Floats{4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23});
  CHECK(t.slice(0, 1, 2).contiguous());
  CHECK(list(t.slice(0, 1, 2).slice(1, 2, 3)) == Floats{20, 21, 22, 23});
  const auto turned = counted({2, 3}).transpose(0, 1);
  CHECK(turned.shape() == Shape{3, 2});
  CHECK_FALSE(turned.contiguous());
  CHECK(list(turned.clone()) == Floats{0, 3, 1, 4, 2, 5});
  CHECK(counted({1, 5}).transpose(0, 1).contiguous());  // a stride over one element says nothing
  CHECK(t.slice(2, 4, 4).numel() == 0);
  t.slice(1, 0, 1).mutable_data()[0] = 100;
  CHECK(t.data()[0] == 100);
}

TEST_CASE("tensor: reshape keeps order and storage") {
  const auto t = counted({2, 6});
  const auto r = t.reshape({3, 4});
  CHECK(r.data() == t.data());
  CHECK(r.strides() == Shape{4, 1});
  CHECK(list(r) == list(t));
}

TEST_CASE("tensor: views carry extents and strides, the rest is 1 and 0") {
  const auto v = counted({2, 3}).transpose(0, 1).view();
  CHECK(v.rank == 2);
  CHECK(v.size[0] == 3);
  CHECK(v.stride[0] == 1);
  CHECK(v.stride[1] == 3);
  CHECK(v.size[4] == 1);
  CHECK(v.stride[4] == 0);
  auto t = counted({2});
  t.mutable_view().data[1] = 8;
  CHECK(t.data()[1] == 8);
}

TEST_CASE("tensor: a mapping is read-only, keeps its owner alive and names itself") {
  auto owner = std::make_shared<Floats>(Floats{1, 2, 3, 4});
  const std::weak_ptr<Floats> watch = owner;
  auto t = Tensor<float>::mapped(owner->data(), {2, 2}, owner, "embed.weight");
  owner.reset();
  CHECK_FALSE(watch.expired());
  CHECK_FALSE(t.writable());
  CHECK(list(t) == Floats{1, 2, 3, 4});
  const std::string text = "tensor 'embed.weight' is a read-only mapping of its file; clone() it to write";
  CHECK_THROWS_AS(t.mutable_data(), UnsupportedError);
  CHECK_THROWS_WITH(t.mutable_data(), text);
  auto row = t.slice(0, 1, 2);
  CHECK_THROWS_WITH(row.mutable_span(), text);
  CHECK_THROWS_WITH(row.mutable_view(), text);
  auto copy = row.clone();
  CHECK_NOTHROW(copy.mutable_data()[0] = 5);
  t = {};
  CHECK_FALSE(watch.expired());
  row = {};
  CHECK(watch.expired());
}

TEST_CASE("tensor: error texts") {
  const auto t = counted({2, 3});
  auto turned = t.transpose(0, 1);
  CHECK_THROWS_WITH(Tensor<float>::from(Floats{1, 2}, {3}), "tensor: 2 values for shape [3]");
  CHECK_THROWS_WITH(turned.span(), "tensor: span() of a strided view of shape [3, 2]; clone() it first");
  CHECK_THROWS_WITH(turned.mutable_span(), "tensor: mutable_span() of a strided view of shape [3, 2]");
  CHECK_THROWS_WITH(t.reshape({4}), "reshape: [2, 3] with strides [3, 1] cannot become [4]");
  CHECK_THROWS_WITH(turned.reshape({6}), "reshape: [3, 2] with strides [1, 3] cannot become [6]");
  CHECK_THROWS_WITH(t.slice(2, 0, 1), "slice: [0, 1) of dimension 2 of [2, 3]");
  CHECK_THROWS_WITH(t.slice(1, 2, 4), "slice: [2, 4) of dimension 1 of [2, 3]");
  CHECK_THROWS_WITH(t.slice(1, 2, 1), "slice: [2, 1) of dimension 1 of [2, 3]");
  CHECK_THROWS_WITH(t.slice(1, -1, 1), "slice: [-1, 1) of dimension 1 of [2, 3]");
  CHECK_THROWS_WITH(t.transpose(0, 2), "transpose: dimensions 0 and 2 of [2, 3]");
  CHECK_THROWS_AS(t.transpose(0, 2), ShapeError);
}

TEST_CASE("tensor: a fill that is shared by threads reaches every element, and no further") {
  const int before = ThreadPool::global().threads();
  ThreadPool::global().set_threads(3);
  const std::int64_t n = (std::int64_t{1} << 20) + 3;  // elements of 4 bytes: five tasks
  const auto t = Tensor<float>::full({n}, 2.5F);
  ThreadPool::global().set_threads(before);
  CHECK(std::count(t.span().begin(), t.span().end(), 2.5F) == n);
}
