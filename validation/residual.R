# Models with structured residuals by nlme -> residual.json.
#
# Usage: Rscript residual.R
# Criteria, estimates and standard errors at tight tolerances. `gls` and `lme` estimate the same
# parameters as residual= and residual_sd=, in nlme's own forms (ratios of standard deviations,
# powers and rates).

suppressPackageStartupMessages({
  library(nlme)
  library(jsonlite)
})

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
shipped <- file.path(here, "..", "lmmsparse", "data")

sleep <- read.csv(file.path(shipped, "sleepstudy.csv"))
pigs <- read.csv(file.path(shipped, "dietox.csv"))
sitka <- read.csv(file.path(shipped, "Sitka.csv"))
teeth <- read.csv(file.path(here, "data", "Orthodont.csv.gz"))
teeth$Sex <- factor(teeth$Sex)
teeth$visit <- (teeth$age - 6) / 2
teeth$age_class <- factor(teeth$age)
holes <- teeth[-c(3, 8, 10, 25, 41, 42, 77, 100), ]

mares <- read.csv(file.path(here, "data", "Ovary.csv.gz"))
rats <- read.csv(file.path(here, "data", "BodyWeight.csv.gz"))
rats$weight0 <- ave(rats$weight, rats$Rat, FUN = function(w) w[1])

tight <- lmeControl(msTol = 1e-13, tolerance = 1e-11, msMaxIter = 2000, maxIter = 2000,
                    niterEM = 100)
tight_gls <- glsControl(msTol = 1e-13, tolerance = 1e-11, msMaxIter = 2000, maxIter = 2000)

models <- list(
  ar1 = function(m) lme(Reaction ~ Days, sleep, ~ 1 | Subject,
                        correlation = corAR1(form = ~ Days | Subject), method = m, control = tight),
  mares = function(m) lme(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), mares, ~ 1 | Mare,
                          correlation = corAR1(form = ~ occasion | Mare), method = m,
                          control = tight),
  rats = function(m) lme(weight ~ Time * factor(Diet), rats, ~ Time | Rat,
                         correlation = corCAR1(form = ~ Time | Rat), method = m, control = tight),
  rats_power = function(m) lme(weight ~ Time * factor(Diet), rats, ~ Time | Rat,
                               weights = varPower(form = ~ weight0), method = m, control = tight),
  exponential = function(m) lme(Reaction ~ Days, sleep, ~ 1 | Subject,
                                weights = varExp(form = ~ Days), method = m, control = tight),
  car1 = function(m) lme(size ~ Time + treat, sitka, ~ 1 | tree,
                         correlation = corCAR1(0.98, form = ~ Time | tree), method = m,
                         control = tight),
  car1_alone = function(m) gls(Weight ~ Time, pigs, correlation = corCAR1(form = ~ Time | Pig),
                               method = m, control = tight_gls),
  power = function(m) lme(size ~ Time + treat, sitka, ~ 1 | tree,
                          weights = varPower(form = ~ Time), method = m, control = tight),
  symmetry = function(m) gls(size ~ Time + treat, sitka,
                             correlation = corCompSymm(form = ~ 1 | tree), method = m,
                             control = tight_gls),
  unstructured = function(m) gls(distance ~ Sex * age_class, holes,
                                 correlation = corSymm(form = ~ visit | Subject),
                                 weights = varIdent(form = ~ 1 | age_class), method = m,
                                 control = tight_gls),
  heterogeneous = function(m) gls(distance ~ age * Sex, holes,
                                  correlation = corAR1(form = ~ visit | Subject),
                                  weights = varIdent(form = ~ 1 | age_class), method = m,
                                  control = tight_gls),
  strata = function(m) lme(distance ~ age * Sex, holes, ~ 1 | Subject,
                           correlation = corCompSymm(form = ~ 1 | Subject),
                           weights = varIdent(form = ~ 1 | Sex), method = m, control = tight),
  ar1_strata = function(m) lme(distance ~ age * Sex, holes, ~ 1 | Subject,
                               correlation = corAR1(form = ~ visit | Subject),
                               weights = varIdent(form = ~ 1 | Sex), method = m, control = tight)
)
models$strata <- NULL # the correlation and the random intercept are one parameter

described <- function(fit) {
  coefficients <- if (inherits(fit, "lme")) fixef(fit) else coef(fit)
  structure <- fit$modelStruct
  out <- list(
    criterion = -2 * as.numeric(logLik(fit)),
    beta = as.list(coefficients),
    se = sqrt(diag(vcov(fit))),
    sigma = fit$sigma,
    normalized = head(as.numeric(resid(fit, type = "normalized")), 30)
  )
  if (!is.null(structure$corStruct)) {
    out$correlation <- as.numeric(coef(structure$corStruct, unconstrained = FALSE))
  }
  if (!is.null(structure$varStruct)) {
    out$variance <- as.list(coef(structure$varStruct, unconstrained = FALSE, allCoef = TRUE))
  }
  if (inherits(fit, "lme")) out$random <- sqrt(getVarCov(fit)[1, 1])
  out
}

results <- lapply(models, function(make) {
  list(REML = described(make("REML")), ML = described(make("ML")))
})
write_json(results, file.path(here, "residual.json"), digits = 14, auto_unbox = TRUE, pretty = 1)
