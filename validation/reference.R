# models.json + data -> reference/<name>.json.gz: every model fitted with lme4 at tight tolerance.
#
# Usage: OPENBLAS_NUM_THREADS=1 Rscript reference.R [data directory] [regular expression of names]
# The data directory holds the CSV files shipped in the package (default ../lmmsparse/data).
#
# lmer's own optimum is only a starting point. The criterion is searched again without bounds, in
# coordinates in which the random-effects columns are orthonormal, from several starts; columns of
# the Cholesky factor that vanish are set to exact zeros; Newton steps on the remaining entries take
# theta to about ten digits. The reported model is then built by lmer at that theta.

suppressPackageStartupMessages({
  library(lme4)
  library(jsonlite)
})

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
user <- commandArgs(trailingOnly = TRUE)
shipped <- if (length(user)) user[1] else file.path(here, "..", "lmmsparse", "data")
wanted <- if (length(user) > 1) user[2] else "."
registry <- fromJSON(file.path(here, "models.json"), simplifyVector = FALSE)

LARGE_N <- 2000     # rows beyond which only the first ROWS fitted values are stored
ROWS <- 200
LARGE_LEVELS <- 300 # levels beyond which only the first LEVELS modes are stored
LEVELS <- 50

# Data ----------------------------------------------------------------------------------------------
raw_data <- function(name) {
  entry <- registry$datasets[[name]]
  path <- if (is.null(entry$file)) {
    file.path(shipped, paste0(name, c(".csv.gz", ".csv")))
  } else file.path(here, entry$file)
  path <- path[file.exists(path)]
  if (!length(path)) stop("no CSV file of data set ", name, " in ", shipped)
  read.csv(path[1], stringsAsFactors = FALSE, check.names = FALSE)
}

as_declared <- function(data, name) {
  columns <- registry$datasets[[name]]$columns
  for (column in intersect(names(columns), names(data))) {
    levels <- unlist(columns[[column]]$levels)
    data[[column]] <- if (is.null(levels)) factor(data[[column]]) else
      factor(data[[column]], levels = levels, ordered = isTRUE(columns[[column]]$ordered))
  }
  data
}

# Small matrix tools --------------------------------------------------------------------------------
# Lower-triangular L with non-negative diagonal and L L' = A A'.
lower_factor <- function(A) {
  L <- t(qr.R(qr(t(A), tol = 1e-300)))
  sweep(L, 2, ifelse(diag(L) < 0, -1, 1), "*")
}

# Cholesky factor of a positive semi-definite matrix: a vanishing pivot gives a zero column.
semidefinite_factor <- function(S, tol = 1e-11) {
  k <- nrow(S)
  scale <- sqrt(pmax(diag(S), 1e-300))
  S <- S / outer(scale, scale)
  L <- matrix(0, k, k)
  for (j in seq_len(k)) {
    done <- seq_len(j - 1)
    pivot <- S[j, j] - sum(L[j, done]^2)
    if (diag(S)[j] == 0 || pivot < tol) next
    L[j, j] <- sqrt(pivot)
    for (i in seq_len(k)[seq_len(k) > j])
      L[i, j] <- (S[i, j] - sum(L[i, done] * L[j, done])) / L[j, j]
  }
  L * scale
}

# Layout of theta -----------------------------------------------------------------------------------
layout_of <- function(terms) {
  position <- 0
  rows <- NULL
  for (t in seq_along(terms$cnms)) {
    columns <- terms$cnms[[t]]
    k <- length(columns)
    at <- which(lower.tri(diag(k), diag = TRUE), arr.ind = TRUE)
    rows <- rbind(rows, data.frame(term = t, group = names(terms$cnms)[t],
                                   row = columns[at[, 1]], column = columns[at[, 2]],
                                   i = at[, 1], j = at[, 2]))
  }
  rows
}

as_matrices <- function(theta, layout) lapply(split(seq_along(theta), layout$term), function(at) {
  k <- max(layout$i[at])
  T <- matrix(0, k, k)
  T[cbind(layout$i[at], layout$j[at])] <- theta[at]
  T
})

as_theta <- function(matrices) unlist(lapply(matrices, function(T) T[lower.tri(T, TRUE)]),
                                      use.names = FALSE)

# Search --------------------------------------------------------------------------------------------
gradient_of <- function(f, x, h = 2e-3) vapply(seq_along(x), function(i) {
  at <- function(step) f(replace(x, i, x[i] + step))
  (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
}, 0)

hessian_of <- function(f, x, h = 4e-3) {
  n <- length(x)
  H <- matrix(0, n, n)
  f0 <- f(x)
  for (i in seq_len(n)) {
    up <- f(replace(x, i, x[i] + h))
    down <- f(replace(x, i, x[i] - h))
    H[i, i] <- (up - 2 * f0 + down) / h^2
    for (j in seq_len(i - 1)) {
      at <- function(a, b) f(replace(x, c(i, j), x[c(i, j)] + c(a, b)))
      H[i, j] <- H[j, i] <- (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4 * h^2)
    }
  }
  H
}

newton <- function(f, x, steps) {
  value <- f(x)
  predicted <- NA
  if (length(x)) for (step in seq_len(steps)) {
    g <- gradient_of(f, x)
    spectrum <- eigen(hessian_of(f, x), symmetric = TRUE)
    curvature <- abs(spectrum$values)
    use <- curvature > 1e-7 * max(curvature)
    direction <- drop(spectrum$vectors[, use, drop = FALSE] %*%
                        (crossprod(spectrum$vectors[, use, drop = FALSE], g) / curvature[use]))
    predicted <- sum(g * direction) / 2
    noise <- 1e-13 * max(1, abs(value))
    rate <- 1
    repeat {
      new <- f(x - rate * direction)
      if (new <= value + noise || rate < 1e-3) break
      rate <- rate / 2
    }
    if (new <= value + noise) {
      x <- x - rate * direction
      value <- new
    }
    if (predicted < 1e-10) break
  }
  list(x = x, value = value, predicted = predicted)
}

polish <- function(f, theta, scale, layout, steps) {
  zero <- theta == 0 & theta[match(paste(layout$term, layout$j, layout$j),
                                   paste(layout$term, layout$i, layout$j))] == 0
  free <- !zero
  full <- function(x) replace(theta, free, x * scale[free])
  out <- newton(function(x) f(full(x)), theta[free] / scale[free], steps)
  theta <- as_theta(lapply(as_matrices(full(out$x), layout), function(T)
    sweep(T, 2, ifelse(diag(T) < 0, -1, 1), "*")))
  list(theta = theta, value = f(theta), predicted = out$predicted)
}

# Set the smallest relative diagonal to zero as long as this costs nothing.
settle_zeros <- function(f, best, scale, layout, steps) repeat {
  T <- as_matrices(best$theta, layout)
  on_diagonal <- which(layout$i == layout$j)
  size <- vapply(on_diagonal, function(at) {
    t <- T[[layout$term[at]]]
    i <- layout$i[at]
    if (t[i, i] == 0) Inf else
      min(t[i, i] / scale[at], if (nrow(t) > 1) t[i, i] / sqrt(sum(t[i, ]^2)) else Inf)
  }, 0)
  smallest <- on_diagonal[which.min(size)]
  if (min(size) > 0.03) return(best)
  term <- layout$term[smallest]
  A <- T[[term]]
  A[layout$i[smallest], layout$i[smallest]] <- 0
  T[[term]] <- semidefinite_factor(tcrossprod(A))
  trial <- polish(f, as_theta(T), scale, layout, steps)
  if (trial$value > best$value + 1e-9 * max(1, abs(best$value) / 1000)) return(best)
  best <- trial
}

search <- function(f, first, columns, layout, restarts, steps) {
  bases <- lapply(columns, function(M) {
    R <- tryCatch(chol(crossprod(M) / nrow(M)), error = function(e) NULL)
    if (is.null(R)) diag(sqrt(colMeans(M^2)), ncol(M)) else R
  })
  from_standard <- function(x) as_theta(Map(function(T, R) lower_factor(solve(R, T)),
                                            as_matrices(x, layout), bases))
  to_standard <- function(theta) as_theta(Map(function(T, R) lower_factor(R %*% T),
                                              as_matrices(theta, layout), bases))
  g <- function(x) f(from_standard(x))
  scale <- vapply(seq_along(first), function(at)
    1 / sqrt(mean(columns[[layout$term[at]]][, layout$i[at]]^2)), 0)
  unit <- as.numeric(layout$i == layout$j)
  starts <- list()
  set.seed(1)
  if (restarts > 0) starts <- c(
    list(to_standard(first), unit),
    lapply(seq_len(restarts), function(r) ifelse(
      unit == 1, runif(length(unit), 0.1, 1.5), rnorm(length(unit), sd = 0.4))))
  best <- list(theta = first, value = f(first))
  for (x in starts) {
    out <- nloptr::nloptr(x, g, opts = list(algorithm = "NLOPT_LN_BOBYQA", maxeval = 5000,
                                            xtol_abs = 1e-10, ftol_abs = 1e-11))
    if (out$objective < best$value) best <- list(theta = from_standard(out$solution),
                                                 value = out$objective)
  }
  before <- best$value
  best <- polish(f, best$theta, scale, layout, steps)
  best <- settle_zeros(f, best, scale, layout, steps)
  c(best, list(before_polish = before, scale = scale))
}

# One model -----------------------------------------------------------------------------------------
# An "optimizer" that accepts the given theta, so that lmer builds its object there.
fixed_theta <- function(fn, par, lower, upper, control, ...)
  list(par = control$theta, fval = fn(control$theta), conv = 0, message = "given")

call_lmer <- function(model, formula, ...) {
  extra <- list(...)
  if (!is.null(model$weights)) extra$weights <- as.name(model$weights)
  if (!is.null(model$offset)) extra$offset <- as.name(model$offset)
  eval(as.call(c(list(quote(lmer), formula, data = quote(model_data), REML = model$reml), extra)))
}

bars_of <- function(formula) {
  bars <- findbars(formula)
  list(groups = unique(unlist(lapply(bars, function(b) all.vars(b[[3]])))),
       effects = unique(c(all.vars(nobars(formula)[[3]]),
                          unlist(lapply(bars, function(b) all.vars(b[[2]]))))))
}

predictions <- function(model, fit, formula, raw) {
  parts <- bars_of(formula)
  used <- as.integer(rownames(model.frame(fit)))
  rows <- used[unique(round(seq(1, length(used), length.out = 5)))]
  offset <- if (is.null(model$offset)) NULL else model$offset
  keep <- intersect(names(raw), c(parts$groups, parts$effects, offset))
  new <- raw[rows, keep, drop = FALSE]
  rownames(new) <- NULL
  factors <- names(registry$datasets[[model$data]]$columns)
  # Numeric predictors move off the observed values; offsets and factors stay.
  for (v in setdiff(intersect(parts$effects, keep), c(factors, "off")))
    new[[v]] <- signif(new[[v]] + 0.37 * sd(raw[[v]], na.rm = TRUE), 6)
  shift <- if (is.null(offset)) 0 else new[[offset]] # lme4's predict() ignores it
  value <- function(data, ...) unname(
    predict(fit, newdata = as_declared(data, model$data), ...)) + shift
  out <- list(newdata = new, population = value(new, re.form = NA), conditional = value(new))
  free <- setdiff(parts$groups, parts$effects)
  if (length(free)) {
    strange <- new
    strange[[free[1]]][1:2] <- if (is.numeric(new[[free[1]]])) 999983 else "new"
    out$new_level <- list(column = free[1], newdata = strange,
                          values = value(strange, allow.new.levels = TRUE))
  }
  if (!is.null(model$partial)) {
    text <- if (is.null(model$r_partial)) model$partial else model$r_partial
    out$partial <- list(formula = model$partial,
                        values = value(new, re.form = as.formula(text)))
  }
  out
}

random_effects <- function(fit) lapply(names(getME(fit, "flist")), function(group) {
  modes <- ranef(fit, condVar = TRUE, whichel = group)[[1]]
  variance <- attr(modes, "postVar")
  if (!is.list(variance)) variance <- list(variance)
  of_group <- Filter(function(t) names(getME(fit, "cnms"))[t] == group,
                     seq_along(getME(fit, "cnms")))
  n <- nrow(modes)
  first <- seq_len(if (n > LARGE_LEVELS) LEVELS else n)
  list(group = group, columns = as.list(names(modes)), n_levels = n,
       levels = as.list(rownames(modes)[first]),
       modes = unname(as.matrix(modes))[first, , drop = FALSE],
       modes_sum = as.list(unname(colSums(modes))),
       modes_sum_of_squares = as.list(unname(colSums(modes^2))),
       cond_var = unname(Map(function(v, t) list(
         columns = as.list(getME(fit, "cnms")[[t]]),
         values = aperm(v, c(3, 1, 2))[first, , , drop = FALSE],
         sum = apply(v, 1:2, sum)), variance, of_group)))
})

shorten <- function(x) {
  n <- length(x)
  x <- unname(x)
  list(first = as.list(if (n > LARGE_N) x[seq_len(ROWS)] else x), n = n, sum = sum(x),
       sum_of_squares = sum(x^2))
}

fixed_thetas <- function(layout, scale) {
  interior <- numeric(nrow(layout))
  on_diagonal <- layout$i == layout$j
  interior[on_diagonal] <- rep_len(c(0.7, 0.4, 1.1, 0.25), sum(on_diagonal))
  interior[!on_diagonal] <- rep_len(c(0.1, -0.1, 0.2), sum(!on_diagonal))
  interior <- signif(interior * scale, 3)
  widest <- which.max(tabulate(layout$term))
  diagonal <- which(layout$term == widest & on_diagonal)
  # In units a million apart rounding leaves nothing of the criterion at the identity.
  unit <- if (max(scale) / min(scale) > 1e3) signif(scale, 3) else 1
  out <- list(unit = on_diagonal * unit, interior = interior,
              singular = replace(interior, tail(diagonal, 1), 0))
  if (length(diagonal) > 1) # a zero above free entries: valid, and where false optima live
    out$first_zero <- replace(interior, diagonal[1], 0)
  out
}

reference <- function(model) {
  raw <- raw_data(model$data)
  model_data <<- as_declared(raw, model$data)
  formula <- as.formula(if (is.null(model$r_formula)) model$formula else model$r_formula)

  said <- list(messages = NULL, warnings = NULL)
  seconds <- system.time(default <- withCallingHandlers(
    call_lmer(model, formula),
    message = function(m) {
      said$messages <<- c(said$messages, trimws(conditionMessage(m)))
      invokeRestart("muffleMessage")
    },
    warning = function(w) {
      said$warnings <<- c(said$warnings, trimws(conditionMessage(w)))
      invokeRestart("muffleWarning")
    }))[["elapsed"]]

  if (seconds < 0.5) seconds <- median(replicate(5, system.time(
    suppressMessages(suppressWarnings(call_lmer(model, formula))))[["elapsed"]]))

  f0 <- suppressMessages(suppressWarnings(call_lmer(model, formula, devFunOnly = TRUE)))
  f <- function(theta) tryCatch(f0(theta), error = function(e) 1e300)
  layout <- layout_of(list(cnms = getME(default, "cnms")))
  columns <- getME(default, "mmList")
  first <- unname(getME(default, "theta"))
  large <- nobs(default) > 20000
  best <- search(f, first, columns, layout,
                 restarts = if (large || length(first) == 1) 0 else 2,
                 steps = if (large) 3 else 8)
  thetas <- fixed_thetas(layout, best$scale)

  fit <- suppressWarnings(suppressMessages(call_lmer(
    model, formula, control = lmerControl(
      optimizer = "fixed_theta", optCtrl = list(theta = best$theta), restart_edge = FALSE,
      boundary.tol = 0, calc.derivs = FALSE, check.conv.singular = "ignore"))))
  stopifnot(identical(unname(getME(fit, "theta")), best$theta))

  criterion <- -2 * as.numeric(logLik(fit))
  stopifnot(abs(criterion - best$value) < 1e-9 * max(1, abs(criterion)))
  ll <- logLik(fit)
  components <- as.data.frame(VarCorr(fit))
  list(
    name = model$name, data = model$data, formula = model$formula, r_formula = model$r_formula,
    reml = model$reml, weights = model$weights, offset = model$offset,
    lme4 = as.character(packageVersion("lme4")), R = R.version.string,
    n = nobs(fit), p = length(fixef(fit)), q = getME(fit, "q"),
    terms = lapply(seq_along(columns), function(t) list(
      group = names(getME(fit, "cnms"))[t], columns = as.list(getME(fit, "cnms")[[t]]))),
    theta = list(names = as.list(names(getME(fit, "theta"))), values = as.list(best$theta),
                 lower = lapply(unname(getME(fit, "lower")), function(x) if (is.finite(x)) x else NULL),
                 term = as.list(layout$term), group = as.list(layout$group),
                 row = as.list(layout$row), column = as.list(layout$column)),
    criterion = criterion,
    criterion_at = lapply(names(thetas), function(label) list(
      label = label, theta = as.list(thetas[[label]]), criterion = f0(thetas[[label]]))),
    singular = any(best$theta[layout$i == layout$j] == 0),
    isSingular = isSingular(fit, tol = 1e-4),
    polish = list(predicted_decrease = best$predicted, before = best$before_polish),
    default_fit = list(criterion = -2 * as.numeric(logLik(default)), theta = as.list(first),
                       evaluations = default@optinfo$feval, seconds = seconds,
                       messages = as.list(said$messages), warnings = as.list(said$warnings)),
    fixef = list(names = as.list(names(fixef(fit))), values = as.list(unname(fixef(fit))),
                 se = as.list(unname(sqrt(diag(as.matrix(vcov(fit)))))),
                 vcov = unname(as.matrix(vcov(fit)))),
    sigma = sigma(fit), logLik = as.numeric(ll), df = attr(ll, "df"), df_resid = df.residual(fit),
    AIC = AIC(fit), BIC = BIC(fit),
    varcorr = components,
    ranef = random_effects(fit),
    fitted = shorten(fitted(fit)), residuals = shorten(residuals(fit)),
    predictions = predictions(model, fit, formula, raw))
}

store <- function(result, name) {
  con <- gzfile(file.path(here, "reference", paste0(name, ".json.gz")), "wb", compression = 9)
  on.exit(close(con))
  write(toJSON(result, auto_unbox = TRUE, digits = NA, null = "null", na = "null",
               dataframe = "columns"), con)
}

set_time <- proc.time()[["elapsed"]]
for (model in registry$models) if (grepl(wanted, model$name)) {
  time <- system.time(result <- tryCatch(reference(model), error = function(e) e))[["elapsed"]]
  if (inherits(result, "error")) {
    cat(sprintf("%-34s FAILED: %s\n", model$name, conditionMessage(result)))
    next
  }
  store(result, model$name)
  cat(sprintf("%-34s %18.9f  below lmer() by %9.2e  %2d thetas%s  %6.1f s\n", model$name,
              result$criterion, result$default_fit$criterion - result$criterion,
              length(result$theta$values), if (result$singular) " singular" else "         ",
              time))
}
cat(sprintf("%.0f s in all\n", proc.time()[["elapsed"]] - set_time))
